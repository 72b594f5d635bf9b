"""`Simulation`: one run of one policy on one trace, from its parts to its record."""

import math
from collections.abc import Callable

import simpy

from schedsim.costs.base import StepCost
from schedsim.errors import SchedsimError
from schedsim.load import Load
from schedsim.results import SLO, RunRecord, StepLog
from schedsim.scheduler import Scheduler
from schedsim.simulator.engine import Engine, Observer
from schedsim.traces.trace import Trace


class Simulation:
    """Runs `load` through `scheduler`; `record` is right at any time, also after an interrupt."""

    def __init__(
        self,
        trace: Trace,
        scheduler: Scheduler,
        load: Load,
        cost: StepCost,
        *,
        slo: SLO | None = None,
        check_every: int | None = None,
        progress: Callable[[float, int], None] | None = None,
    ) -> None:
        """See `Engine` for the options."""
        self._trace = trace
        self._scheduler = scheduler
        self._slo = slo
        self._steps = StepLog()
        self._stop_asked = False
        self._engine = Engine(
            scheduler,
            load,
            cost,
            self._steps,
            check_every=check_every,
            progress=progress,
        )

    def observe(self, *observers: Observer) -> None:
        """Let `observers` look at every iteration; before `run`."""
        self._engine.observers += observers

    def stop(self) -> None:
        """Let `run` return before its next event; safe in a signal handler."""
        self._stop_asked = True

    def run(self) -> bool:
        """Simulate until nothing is left to do; False if `stop` ended it before that.

        Raises:
            PolicyError: the policy raised, asked for something impossible, or left work that can
                never run.
        """
        env = simpy.Environment()
        env.process(self._engine.process(env))
        try:
            while env.peek() < math.inf:
                if self._stop_asked:
                    return False
                env.step()
            return True
        except SchedsimError as error:
            failure = error.__cause__ or error  # SimPy raises a copy that has ours as its cause
        raise failure

    def books_hold(self) -> bool:
        """Whether all invariants hold, so that `record` can be trusted; after an exception."""
        try:
            self._scheduler.check()
        except (AssertionError, LookupError):
            return False
        return True

    def record(self, interrupted: str | None = None) -> RunRecord:
        """What happened so far; call once, after `run` returned or raised."""
        kv_cache = self._scheduler.kv_cache
        return RunRecord(
            trace=self._trace,
            requests=self._engine.requests,
            steps=self._steps,
            tokens=self._scheduler.finish_log(),
            total_blocks=kv_cache.total_blocks,
            block_size=kv_cache.block_size,
            end_time=self._engine.now,
            slo=self._slo,
            interrupted=interrupted,
        )
