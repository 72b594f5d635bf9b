"""`EngineLoop`: everything that an engine does but run a batch: arrivals, decisions, books."""

import math
from collections import deque
from collections.abc import Callable, Mapping
from typing import Protocol

from schedsim.backend.pace import Pace, TimesAhead, times_ahead
from schedsim.errors import PolicyError, SchedsimError
from schedsim.load import Load
from schedsim.request import Request
from schedsim.results.request_log import RequestLog
from schedsim.results.step_log import StepLog
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

LONGEST_RUN = 10_000
"""Iterations that are run ahead at most, so that Ctrl-C and progress have their turn."""

WORTH_AT_ONCE = 8
"""Iterations from which on it is faster to book them with arrays than one by one."""


class Observer(Protocol):
    """Looks at every iteration: after its decision and right after its completion.

    With overlapped decisions the next batch is decided between the two.
    """

    def scheduled(self, scheduler: Scheduler, batch: Batch, arrived: list[Request]) -> None:
        """`batch` was decided, nothing since then; `arrived` came since the decision before."""

    def completed(
        self, scheduler: Scheduler, completion: Completion, start: float, end: float
    ) -> None:
        """The batch ran from `start` to `end`."""


class EngineLoop:
    """The loop of one replica without its clock.

    A backend calls `look` at every moment at which its engine decides. What comes back runs: the
    backend calls `announce`, runs the batch and calls `finish`. If nothing runs, `wake` says when
    to look again. With overlapped decisions it looks once more while a batch runs (`overlaps`), and
    what it finds then runs next. All times are absolute seconds of the run. At equal times
    completions come first, then arrivals, then the decision. `live` are the requests that were
    released and have not ended, `ended` those that finished or were refused, `now` the latest time
    that the loop was told, `handed_over` when requests came into the inbox of an engine that polls,
    where that is known.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        load: Load,
        steps: StepLog,
        *,
        polls: bool = False,
        check_every: int | None = None,
        progress: Callable[[float, int], None] | None = None,
        progress_every: int = PROGRESS_EVERY,
    ) -> None:
        """`polls`: requests are handed over when the engine looks, not at their own time.

        `check_every` N asserts all invariants after every N-th iteration; `progress` is called now
        and then with the time and the requests that ended.
        """
        self.live: dict[int, Request] = {}
        self.ended = RequestLog()
        self.now = 0.0
        self.observers: tuple[Observer, ...] = ()
        self.polls = polls
        self.handed_over: Mapping[int, float] = {}
        self.overlaps = scheduler.decision_lag > 0
        self._scheduler = scheduler
        self._load = load
        self._steps = steps
        self._check_every = check_every
        self._progress = progress
        self._progress_every = progress_every
        self._arrived: list[Request] = []
        self._last_arrival = -1
        # (batch, last arrival, running, waiting) at the decision of each that has not ended.
        self._decided: deque[tuple[Batch, int, int, int]] = deque()
        self._num_decided = 0
        self._futile_preemptions = 0
        self._idle_wakes = 0

    def look(self, now: float) -> Batch | None:
        """Take what has arrived by `now` and decide; None, noted in the step log, if nothing runs.

        A batch that only preempts is a batch; it takes no time.

        Raises:
            PolicyError: the policy raised or asked for something impossible.
        """
        self.now = now
        scheduler = self._scheduler
        due = self._load.next_time
        if due is not None and due <= now:
            self._take_arrivals(now)
        if scheduler.has_work:
            batch = scheduler.schedule(now)
            if scheduler.rejected:
                self._settle_rejected(now)
            if batch.prefills or batch.runs_decodes or batch.preempted:
                self._num_decided += 1
                self._decided.append(
                    (batch, self._last_arrival, scheduler.num_running, len(scheduler.queue))
                )
                return batch
        self._steps.note_idle_look(now, self._num_decided)
        return None

    def announce(self, batch: Batch) -> None:
        """Tell the observers of `batch`, which `look` returned last; before anything else."""
        if self.observers:
            for observer in self.observers:
                observer.scheduled(self._scheduler, batch, self._arrived)
            self._arrived = []

    def finish(self, batch: Batch, start: float, end: float) -> None:
        """Book the batch, the oldest that was decided, which ran from `start` to `end`.

        Raises:
            PolicyError: a hook of the policy raised, or it preempts for ever and emits nothing.
        """
        scheduler = self._scheduler
        _, last_arrival, running, waiting = self._decided.popleft()
        # What is held while the iteration runs, before its finished requests give theirs back.
        stored = scheduler.stored_tokens
        for later, *_ in self._decided:
            stored -= later.prefill_tokens + later.decode_requests
        self.now = end
        self._note_step(batch, start, end, last_arrival, running, waiting, stored)
        try:
            completion = scheduler.complete(batch, end)
        except SchedsimError:  # a hook's; the books are whole all the same, so the record is to be
            self._settle(scheduler.last_completion, start, end)
            raise
        if completion.finished or scheduler.rejected or self.observers:
            self._settle(completion, start, end)
        if self._check_every is not None and batch.iteration % self._check_every == 0:
            scheduler.check()
        if self._progress is not None and batch.iteration % self._progress_every == 0:
            self._progress(end, len(self.ended))
        self._idle_wakes = 0
        if batch.sampled:
            self._futile_preemptions = 0
        elif batch.preempted:
            self._watch_for_livelock(batch)

    def run_ahead(self, batch: Batch, now: float, pace: Pace) -> float:
        """Run what is known to follow `batch`, which ended last.

        That is what `look` at `now` and so on would decide, up to where it might decide otherwise;
        `pace` says how long each iteration takes. Returns when to look next. The step log has all
        of them, observers see none: with observers nothing is run ahead.

        Raises:
            PolicyError: a hook of the policy raised.
        """
        if batch.prefills or self.observers or self._has_failed_to_reserve():
            return now
        scheduler = self._scheduler
        left = min(scheduler.steady_after(batch), LONGEST_RUN)
        if self._check_every is not None:
            left = min(left, self._check_every - 1 - batch.iteration % self._check_every)
        if left <= 0:
            return now
        ahead = scheduler.steady_batch()
        due = self._next_due()
        before = num_decided = self._num_decided
        known: TimesAhead | None = None  # of the next iterations, through what arrives in them
        while left:
            if now >= due:
                if not scheduler.runs_to_the_end:
                    break
                scheduler.end_repeats(self._num_decided - num_decided, self.now)
                num_decided = self._num_decided
                self._take_arrivals(now)
                due = self._next_due()
            if known is None:
                known = self._times_at_once(ahead, now, left, pace)
            if known is not None:
                times, known = known.split(due)
                self._skip(ahead, times)
                left -= len(times.end)
                now = times.next_look
            elif scheduler.repeat(ahead):
                left -= 1
                now = self._repeat(ahead, now, pace)
            else:
                break
        scheduler.end_repeats(self._num_decided - num_decided, self.now)
        to_report = self._progress_every - batch.iteration % self._progress_every
        if self._progress is not None and self._num_decided - before >= to_report:
            self._progress(self.now, len(self.ended))
        return now

    def wake(self, now: float) -> float | None:
        """When to look again after a look at `now` that ran nothing; None: nothing is left to do.

        Raises:
            PolicyError: work is left that nothing will ever run, or the policy names no later time.
        """
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
            return None
        raise PolicyError(
            f"deadlock: policy {scheduler.policy.name!r} runs nothing at {now} s while "
            f"{scheduler.num_running} requests run and {len(scheduler.queue)} wait, nothing will "
            f"arrive, and wake_at says no time; first in line: {_first(scheduler)}"
        )

    def close(self) -> None:
        """Write down who has not ended, in the order of their release: `ended` has all then.

        After the scheduler's `finish_log`, which makes the progress of decodes real.
        """
        for request in self.live.values():
            self.ended.add(request)
        self.live.clear()

    def check(self) -> None:
        """Assert that every iteration and every request is written down whole and once; O(all)."""
        self._steps.check()
        self.ended.check()
        ended = self.ended.column("id").tolist()
        assert len(set(ended)) == len(ended), "a request ended twice"
        assert self.live.keys().isdisjoint(ended), "a request lives and has ended"

    # ---- inside

    def _repeat(self, batch: Batch, now: float, pace: Pace) -> float:
        """Run a batch that was decided once more; returns when the engine would look again."""
        scheduler = self._scheduler
        batch.decided_at = now
        batch.iteration = self._num_decided
        host, duration, gap = pace.parts_of(batch, now)
        start = now + host
        self.now = end = start + duration
        self._note_step(
            batch, start, end, self._last_arrival, scheduler.num_running, len(scheduler.queue),
            scheduler.stored_tokens,
        )  # fmt: skip
        scheduler.decode_set.end(end)
        self._num_decided += 1
        return end + gap

    def _times_at_once(self, batch: Batch, now: float, most: int, pace: Pace) -> TimesAhead | None:
        """When the next iterations run in which the memory has nothing to do; None: one by one."""
        if pace.parts_ahead is None or most < WORTH_AT_ONCE:
            return None
        together = min(most, self._scheduler.quiet_iterations)
        if together < WORTH_AT_ONCE:
            return None
        batch.iteration = self._num_decided
        self._scheduler.measure(batch)
        return times_ahead(now, pace.parts_ahead(batch, together), together)

    def _skip(self, batch: Batch, times: TimesAhead) -> None:
        """Run a batch as often as there are times, while the memory has nothing to do."""
        scheduler = self._scheduler
        scheduler.measure(batch)
        self._steps.append_ahead(
            batch, times.decided_at, times.start, times.end, self._last_arrival,
            scheduler.num_running, len(scheduler.queue), scheduler.kv_cache.free_blocks,
            scheduler.stored_tokens + batch.decode_requests,
        )  # fmt: skip
        scheduler.skip(batch, times.end)
        self._num_decided += len(times.end)
        self.now = float(times.end[-1])

    def _next_due(self) -> float:
        due = self._load.next_time
        return math.inf if due is None else due

    def _note_step(
        self,
        batch: Batch,
        start: float,
        end: float,
        last_arrival: int,
        running: int,
        waiting: int,
        stored: int,
    ) -> None:
        """Its row in the step log."""
        kv_cache = self._scheduler.kv_cache
        self._steps.append(
            batch, start, end, last_arrival, running, waiting, kv_cache.free_blocks, stored
        )
        if kv_cache.reserves_growth:
            self._steps.note_memory(kv_cache.use(stored))

    def _has_failed_to_reserve(self) -> bool:
        """Whether a reservation failed in the last iteration; it would in the next: each counts."""
        failed = self._steps.failed_though_enough[-2:]
        return bool(failed) and failed[-1] > (failed[0] if len(failed) > 1 else 0)

    def _take_arrivals(self, now: float) -> None:
        load, scheduler = self._load, self._scheduler
        due = load.next_time
        while due is not None and due <= now:
            request, output_tokens = load.take()
            request.released = self.handed_over.get(request.id, now) if self.polls else due
            self.live[request.id] = request
            self._last_arrival = request.id
            self._idle_wakes = 0
            if scheduler.add(request, output_tokens, now) and self.observers:
                self._arrived.append(request)
            if scheduler.rejected:
                self._settle_rejected(now)
            due = load.next_time

    def _settle(self, completion: Completion, start: float, end: float) -> None:
        """Tell the load and the observers what an iteration brought."""
        scheduler = self._scheduler
        for request in completion.finished:
            self._end(request, end)
        if scheduler.rejected:
            self._settle_rejected(end)
        for observer in self.observers:
            observer.completed(scheduler, completion, start, end)

    def _settle_rejected(self, now: float) -> None:
        """Tell the load who was rejected, so that it goes on without them."""
        for request in self._scheduler.rejected:
            self._end(request, now)
        self._scheduler.rejected.clear()

    def _end(self, request: Request, now: float) -> None:
        self.ended.add(request)
        del self.live[request.id]
        self._load.ended(request, now)

    def _watch_for_livelock(self, batch: Batch) -> None:
        """Count what a batch that emits nothing preempts."""
        self._futile_preemptions += len(batch.preempted)
        if self._futile_preemptions >= MAX_FUTILE_PREEMPTIONS:
            raise PolicyError(
                f"livelock: policy {self._scheduler.policy.name!r} preempted "
                f"{self._futile_preemptions} times up to iteration {batch.iteration} "
                f"without one output token; last request {batch.preempted[-1].id}"
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
