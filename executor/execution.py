"""`Execution`: a run in real time, on a device. The clock is passed in."""

import math
from collections.abc import Callable
from typing import NamedTuple

from schedsim.backend import Backend
from schedsim.executor.runner import ModelRunner, PreparedBatch
from schedsim.load import Load
from schedsim.results import SLO
from schedsim.scheduler import Scheduler
from schedsim.traces.trace import Trace

LONGEST_NAP = 0.05
"""Seconds after which an idle engine looks whether `stop` was called."""

PROGRESS_EVERY = 8


class _Decided(NamedTuple):
    """A batch, when it was decided and from when it could run (s)."""

    prepared: PreparedBatch
    decided_at: float
    ready_at: float


class Execution(Backend):
    """Runs `load` through `scheduler` and every batch on `runner`.

    Time is what `clock` says since `run` began. A request is released when the engine looks and it
    is due. Each iteration: `decided_at` (arrivals taken, then the decision), the batch's tensors,
    `start`, the device's work, `end` when the host can see the tokens, then the books. Observers
    look after `end`, so their time is in no iteration but in the gap to the next one. With
    overlapped decisions the next iteration is decided, observed and its tensors made once the
    device has its work, and it starts as soon as the books are done.
    """

    def __init__(
        self,
        trace: Trace,
        scheduler: Scheduler,
        load: Load,
        runner: ModelRunner,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        slo: SLO | None = None,
        check_every: int | None = None,
        progress: Callable[[float, int], None] | None = None,
    ) -> None:
        """`clock` never goes back; `sleep` may return early. See `EngineLoop` for the options."""
        super().__init__(
            trace,
            scheduler,
            load,
            polls=True,
            slo=slo,
            check_every=check_every,
            progress=progress,
            progress_every=PROGRESS_EVERY,
        )
        self._runner = runner
        self._clock = clock
        self._sleep = sleep
        self._origin = 0.0
        self._last_end = math.nan

    def run(self) -> bool:
        """Run in real time until nothing is left to do; False if `stop` ended it before that.

        `stop` takes effect between two iterations and within `LONGEST_NAP` while the engine idles.

        Raises:
            PolicyError: as `Backend.run`.
            ExecutionError: the device cannot go on; names the iteration.
        """
        self._runner.warm_up()
        self._origin = self._clock()
        following: _Decided | None = None
        while not self._stop_asked:
            if following is not None:
                following = self._run(following, self._now())
                continue
            decided_at = self._now()
            decided = self._look(decided_at)
            if decided is not None:
                following = self._run(decided, decided.ready_at)
                continue
            due = self._loop.wake(decided_at)
            if due is None:
                return True
            self._wait_until(due)
        return False

    def _look(self, now: float) -> _Decided | None:
        batch = self._loop.look(now)
        if batch is None:
            return None
        prepared = self._runner.prepare(batch, self._scheduler.padding)
        if self._loop.overlaps:
            self._loop.announce(batch)
        return _Decided(prepared, now, self._now())

    def _run(self, decided: _Decided, start: float) -> _Decided | None:
        """Run a batch; what was decided in the meantime."""
        loop, batch = self._loop, decided.prepared.batch
        following = None
        launched = self._runner.launch(decided.prepared)
        if loop.overlaps:
            following = self._look(self._now())
        gpu_s = self._runner.wait(launched)
        end = self._now()
        if not loop.overlaps:
            loop.announce(batch)
        try:
            loop.finish(batch, start, end)
        finally:
            if len(self._steps) > len(self._steps.gpu_s):
                host_s = decided.ready_at - decided.decided_at
                gap_to = start if loop.overlaps else decided.decided_at
                self._steps.note_device(host_s, gpu_s, gap_to - self._last_end)
        self._last_end = end
        return following

    def _now(self) -> float:
        return self._clock() - self._origin

    def _wait_until(self, due: float) -> None:
        """Sleep until `due` or `stop`; the wait is no gap of the next iteration."""
        self._last_end = math.nan
        while not self._stop_asked and (left := due - self._now()) > 0:
            self._sleep(min(left, LONGEST_NAP))
