"""`Execution`: a run in real time, on a device. The clock is passed in."""

import math
from collections.abc import Callable

from schedsim.backend import Backend
from schedsim.executor.runner import ModelRunner
from schedsim.load import Load
from schedsim.results import SLO
from schedsim.scheduler import Scheduler
from schedsim.traces.trace import Trace

LONGEST_NAP = 0.05
"""Seconds after which an idle engine looks whether `stop` was called."""

PROGRESS_EVERY = 8


class Execution(Backend):
    """Runs `load` through `scheduler` and every batch on `runner`; decisions are synchronous.

    Time is what `clock` says since `run` began. A request is released when the engine looks and it
    is due. Each iteration: `decided_at` (arrivals taken, then the decision), the batch's tensors,
    `start`, the device's work, `end` when the host can see the tokens, then the books. Observers
    look after `end`, so their time is in no iteration but in the gap to the next one.
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
        while not self._stop_asked:
            decided_at = self._now()
            batch = self._loop.look(decided_at)
            if batch is None:
                due = self._loop.wake(decided_at)
                if due is None:
                    return True
                self._wait_until(due)
                continue
            prepared = self._runner.prepare(batch, self._scheduler.padding)
            start = self._now()
            gpu_s = self._runner.run(prepared)
            end = self._now()
            self._loop.begin(batch, start)
            try:
                self._loop.finish(batch, start, end)
            finally:
                if len(self._steps) > len(self._steps.gpu_s):
                    gap_s = decided_at - self._last_end
                    self._steps.note_device(start - decided_at, gpu_s, gap_s)
            self._last_end = end
        return False

    def _now(self) -> float:
        return self._clock() - self._origin

    def _wait_until(self, due: float) -> None:
        """Sleep until `due` or `stop`; the wait is no gap of the next iteration."""
        self._last_end = math.nan
        while not self._stop_asked and (left := due - self._now()) > 0:
            self._sleep(min(left, LONGEST_NAP))
