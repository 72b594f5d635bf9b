"""`Simulation`: the backend whose clock is SimPy's and whose device is a step-time model."""

import gc
import math
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import NamedTuple

import simpy

from schedsim.backend import Backend
from schedsim.backend.pace import make_pace
from schedsim.costs.base import PartedCost, StepCost
from schedsim.costs.noise import StepNoise
from schedsim.costs.recorded import RecordedTimes
from schedsim.load import Load
from schedsim.results import SLO
from schedsim.scheduler import Batch, Scheduler
from schedsim.simulator.replay import Replay
from schedsim.traces.trace import Trace

COLLECT_EVERY = 200_000
"""Objects that may come to be before Python looks for cycles: a run makes none, and each look
passes over all requests."""


class Simulation(Backend):
    """Owns the absolute time of its replica in float64 seconds; SimPy only wakes it.

    One SimPy event an iteration, or an iteration with the run of those that are known to follow it.
    Each engine process returns whether it came to its end.
    """

    def __init__(
        self,
        trace: Trace,
        scheduler: Scheduler,
        load: Load,
        cost: StepCost | RecordedTimes,
        *,
        slo: SLO | None = None,
        check_every: int | None = None,
        progress: Callable[[float, int], None] | None = None,
        fast_forward: bool = True,
        noise: StepNoise | None = None,
    ) -> None:
        """`cost` says how long an iteration takes, or when each one of another run was.

        `noise` scatters what a model says. `fast_forward`: iterations whose decisions are known in
        advance are not decided one by one; the results are the same.
        """
        super().__init__(
            trace,
            scheduler,
            load,
            slo=slo,
            polls=isinstance(cost, RecordedTimes) and cost.polled,
            check_every=check_every,
            progress=progress,
        )
        self._cost = cost
        self._fast_forward = fast_forward
        self._noise = noise

    def run(self) -> bool:
        env = simpy.Environment()
        if isinstance(self._cost, RecordedTimes):
            engine = self._replay(env, Replay(self._cost))
        elif self._loop.overlaps:
            engine = self._overlapped(env, self._cost)
        else:
            engine = self._process(env, self._cost)
        with rare_collections():
            return bool(env.run(env.process(engine)))

    def _process(
        self, env: simpy.Environment, cost: StepCost
    ) -> Generator[simpy.Event, None, bool]:
        """The engine under a step-time model: it decides the moment it is free.

        What a model says of the engine's own time passes before and after the batch.
        """
        loop, fast_forward = self._loop, self._fast_forward
        pace = make_pace(cost, self._noise)
        has_parts = self._noise is not None or isinstance(cost, PartedCost)
        seconds = None if has_parts else cost.seconds
        now = 0.0
        while not self._stop_asked:
            batch = loop.look(now)
            if batch is None:
                wake = loop.wake(now)
                if wake is None:
                    return True
                now = wake
                yield env.timeout(max(0.0, now - env.now))
                continue
            if loop.observers:
                loop.announce(batch)
            host = gap = 0.0
            # Called once an iteration: what needs no parts makes none.
            duration = seconds(batch) if seconds is not None and batch.sampled else 0.0
            if not 0.0 < duration < math.inf:
                host, duration, gap = pace.parts_of(batch, now)
            start = now + host
            end = start + duration
            loop.finish(batch, start, end)
            now = end + gap
            if fast_forward:
                now = loop.run_ahead(batch, now, pace)
            yield env.timeout(max(0.0, now - env.now))
        return False

    def _overlapped(
        self, env: simpy.Environment, cost: StepCost
    ) -> Generator[simpy.Event, None, bool]:
        """The engine that decides an iteration when the one before it begins.

        What a model says of the engine's own time before a batch passes beside the batch in flight.
        """
        loop = self._loop
        parts_of = make_pace(cost, self._noise).parts_of
        now = 0.0
        batch = None
        while not self._stop_asked:
            if batch is None:
                batch = loop.look(now)
                if batch is None:
                    wake = loop.wake(now)
                    if wake is None:
                        return True
                    now = wake
                    yield env.timeout(max(0.0, now - env.now))
                    continue
                loop.announce(batch)
                host, duration, gap = parts_of(batch, now)
                now += host
            start, end = now, now + duration
            yield env.timeout(max(0.0, start - env.now))
            following = loop.look(start)
            if following is not None:
                loop.announce(following)
            yield env.timeout(max(0.0, end - env.now))
            loop.finish(batch, start, end)
            now = end + gap
            if following is not None:
                host, duration, gap = parts_of(following, now)
                now = max(now, start + host)
            batch = following
        return False

    def _replay(self, env: simpy.Environment, replay: Replay) -> Generator[simpy.Event, None, bool]:
        """The engine at the recorded moments; after the last one, what arrives can only be refused.

        Where the recorded run was stopped, so is this one, with a ReplayError.
        """
        loop = self._loop
        now = 0.0
        running = None
        while running is not None or not replay.cut_short:
            if self._stop_asked:
                return False
            if running is None:
                if not replay.at_end:
                    now = replay.next_look()
                    yield env.timeout(max(0.0, now - env.now))
                running = self._look_again(replay, now)
                if running is None:
                    wake = loop.wake(now)
                    if not replay.at_end:
                        replay.nothing_ran(now)
                    elif wake is None:
                        return True
                    else:
                        now = wake
                    continue
            following = None
            if loop.overlaps and not replay.cut_short:
                now = running.start if replay.at_end else replay.next_look()
                yield env.timeout(max(0.0, now - env.now))
                following = self._look_again(replay, now)
                if following is None and not replay.at_end:
                    replay.nothing_ran(now)
            yield env.timeout(max(0.0, running.end - env.now))
            loop.finish(*running)
            now = running.end
            running = following
        raise replay.stopped()

    def _look_again(self, replay: Replay, now: float) -> "_Timed | None":
        """The batch that is decided at `now`, with its recorded times."""
        batch = self._loop.look(now)
        if batch is None:
            return None
        start, end = replay.span(batch)
        self._loop.announce(batch)
        return _Timed(batch, start, end)


@contextmanager
def rare_collections() -> Iterator[None]:
    """Let Python look for garbage less often; what a policy leaves in cycles still goes."""
    first, *others = gc.get_threshold()
    gc.set_threshold(first and max(first, COLLECT_EVERY), *others)
    try:
        yield
    finally:
        gc.set_threshold(first, *others)


class _Timed(NamedTuple):
    """A batch of a replay, and when it ran."""

    batch: Batch
    start: float
    end: float
