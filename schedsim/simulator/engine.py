"""`Engine`: one replica as a SimPy process: arrivals in, decision, iteration, completion."""

import math
from collections.abc import Callable, Generator
from typing import Protocol

import simpy

from schedsim.costs.base import StepCost
from schedsim.errors import ConfigError, PolicyError
from schedsim.load import Load
from schedsim.request import Request
from schedsim.results import StepLog
from schedsim.scheduler import Batch, Completion, Scheduler

MAX_FUTILE_PREEMPTIONS = 10_000
"""Preemptions without an output token in between before the run is called a livelock.

Emitted tokens are never lost, and without preemptions computed ones are not either: a run that goes
on for ever is one that preempts and emits nothing.
"""

MAX_IDLE_WAKES = 100_000
"""Times in a row that a policy may have itself woken to run nothing while nothing arrives."""

PROGRESS_EVERY = 512
"""Iterations between two reports of progress."""


class Observer(Protocol):
    """Looks at every iteration: right after its decision and right after its completion."""

    def scheduled(
        self, scheduler: Scheduler, batch: Batch, arrived: list[Request], start: float
    ) -> None:
        """`batch` was decided; `arrived` came since the decision before."""

    def completed(self, scheduler: Scheduler, completion: Completion, end: float) -> None:
        """The batch ended."""


class Engine:
    """Owns the absolute time of its replica in float64 seconds; SimPy only wakes it.

    At equal times completions come first, then arrivals, then the decision. One SimPy event an
    iteration: nothing else in here is an event, so `process` is the place where runs of
    iterations can become one.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        load: Load,
        cost: StepCost,
        steps: StepLog,
        *,
        check_every: int | None = None,
        progress: Callable[[float, int], None] | None = None,
    ) -> None:
        """`check_every` N asserts all invariants after every N-th iteration.

        `progress` is called now and then with the simulated time and the requests that ended.
        """
        self.requests: dict[int, Request] = {}
        self.now = 0.0
        self.num_ended = 0
        self.observers: tuple[Observer, ...] = ()
        self._scheduler = scheduler
        self._load = load
        self._cost = cost
        self._steps = steps
        self._check_every = check_every
        self._progress = progress
        self._arrived: list[Request] = []
        self._last_arrival = -1
        self._futile_preemptions = 0
        self._idle_wakes = 0

    def process(self, env: simpy.Environment) -> Generator[simpy.Event, None, None]:
        """The SimPy process of this replica; ends when nothing is left to do."""
        scheduler, load = self._scheduler, self._load
        seconds = self._cost.seconds
        now = self.now
        while True:
            due = load.next_time
            if due is not None and due <= now:
                self._take_arrivals(now)
            if not scheduler.has_work:
                if load.next_time is None:
                    return
                batch = None
            else:
                batch = scheduler.schedule(now)
                if scheduler.rejected:
                    self._settle_rejected(now)
            if batch is None or (batch.is_empty and not batch.preempted):
                now = self._next_wake(now)
                self.now = now
                yield env.timeout(max(0.0, now - env.now))
                continue
            running, waiting = scheduler.num_running, len(scheduler.queue)
            if self.observers:
                self._observe(batch, now)
            end = now
            if not batch.is_empty:
                duration = seconds(batch)
                if not 0.0 <= duration < math.inf:
                    raise self._bad_duration(duration, batch)
                end += duration
            yield env.timeout(end - now)
            self._complete(batch, now, end, running, waiting)
            self.now = now = end

    def _bad_duration(self, duration: float, batch: Batch) -> ConfigError:
        return ConfigError(
            f"the step-time model {self._cost.describe().get('name')!r} gives {duration} s for "
            f"iteration {batch.iteration} ({batch.prefill_tokens} prefill tokens, "
            f"{batch.decode_requests} decodes); it must be finite and not negative"
        )

    def _complete(self, batch: Batch, start: float, end: float, running: int, waiting: int) -> None:
        scheduler = self._scheduler
        # What is held while the iteration runs, before its finished requests give theirs back.
        stored = scheduler.stored_tokens + batch.prefill_tokens + batch.decode_requests
        free_blocks = scheduler.kv_cache.free_blocks
        completion = scheduler.complete(batch, end)
        self._steps.append(
            batch.decided_at,
            start,
            end,
            self._last_arrival,
            batch.prefill_tokens,
            batch.decode_requests,
            batch.decode_context - batch.decode_requests,
            running,
            waiting,
            free_blocks,
            stored,
            len(batch.preempted),
        )
        for request in completion.finished:
            self.num_ended += 1
            self._load.ended(request, end)
        if scheduler.rejected:
            self._settle_rejected(end)
        for observer in self.observers:
            observer.completed(scheduler, completion, end)
        if self._check_every is not None and batch.iteration % self._check_every == 0:
            scheduler.check()
        if self._progress is not None and batch.iteration % PROGRESS_EVERY == 0:
            self._progress(end, self.num_ended)
        self._idle_wakes = 0
        if batch.sampled:
            self._futile_preemptions = 0
        elif batch.preempted:
            self._futile_preemptions += len(batch.preempted)
            if self._futile_preemptions >= MAX_FUTILE_PREEMPTIONS:
                raise PolicyError(
                    f"livelock: policy {scheduler.policy.name!r} preempted "
                    f"{self._futile_preemptions} times up to iteration {batch.iteration} "
                    f"without one output token; last request {batch.preempted[-1].id}"
                )

    def _take_arrivals(self, now: float) -> None:
        load, scheduler = self._load, self._scheduler
        due = load.next_time
        while due is not None and due <= now:
            request, output_tokens = load.take()
            request.released = request.arrival
            self.requests[request.id] = request
            self._last_arrival = request.id
            self._idle_wakes = 0
            if scheduler.add(request, output_tokens, now) and self.observers:
                self._arrived.append(request)
            if scheduler.rejected:
                self._settle_rejected(now)
            due = load.next_time

    def _settle_rejected(self, now: float) -> None:
        """Tell the load who was rejected, so that it goes on without them."""
        for request in self._scheduler.rejected:
            self.num_ended += 1
            self._load.ended(request, now)
        self._scheduler.rejected.clear()

    def _observe(self, batch: Batch, now: float) -> None:
        for observer in self.observers:
            observer.scheduled(self._scheduler, batch, self._arrived, now)
        self._arrived = []

    def _next_wake(self, now: float) -> float:
        """When to decide again after an iteration that ran nothing."""
        scheduler = self._scheduler
        times = [] if self._load.next_time is None else [self._load.next_time]
        if scheduler.has_work:
            wake = scheduler.wake_at()
            if wake is not None:
                if not wake > now:  # NaN included
                    raise PolicyError(
                        f"policy {scheduler.policy.name!r} ran nothing at {now} s and asks to be "
                        f"woken at {wake} s, which is not later"
                    )
                times.append(wake)
                self._idle_wakes += 1
        if self._idle_wakes > MAX_IDLE_WAKES:
            raise PolicyError(
                f"livelock: policy {scheduler.policy.name!r} had itself woken {MAX_IDLE_WAKES} "
                f"times in a row up to {now} s and ran nothing; let `wake_at` name the time at "
                "which something can run"
            )
        if times:
            return min(times)
        if not scheduler.has_work:
            return now  # whoever was left has been rejected
        raise PolicyError(
            f"deadlock: policy {scheduler.policy.name!r} runs nothing at {now} s while "
            f"{scheduler.num_running} requests run and {len(scheduler.queue)} wait, nothing will "
            f"arrive, and wake_at says no time; first in line: {_first(scheduler)}"
        )


def _first(scheduler: Scheduler) -> str:
    request = scheduler.queue.first()
    if request is None:
        return "nobody"
    need = scheduler.kv_cache.blocks_for(request.num_known_tokens)
    return (
        f"request {request.id} ({request.num_known_tokens} tokens, {need} blocks; "
        f"{scheduler.kv_cache.free_blocks} free)"
    )
