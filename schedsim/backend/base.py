"""`Backend`: one run of one policy on one trace, whatever tells the time."""

from abc import ABC, abstractmethod
from collections.abc import Callable

from schedsim.backend.loop import PROGRESS_EVERY, EngineLoop, Observer
from schedsim.load import Load
from schedsim.results.device_log import DeviceLog
from schedsim.results.record import SLO, RunRecord
from schedsim.results.request_log import RequestLog
from schedsim.results.step_log import StepLog
from schedsim.scheduler import Scheduler
from schedsim.traces.trace import Trace


class Backend(ABC):
    """Runs `load` through `scheduler`; `record` is right at any time, also after an interrupt."""

    def __init__(
        self,
        trace: Trace,
        scheduler: Scheduler,
        load: Load,
        *,
        steps: StepLog | None = None,
        slo: SLO | None = None,
        polls: bool = False,
        check_every: int | None = None,
        progress: Callable[[float, int], None] | None = None,
        progress_every: int = PROGRESS_EVERY,
    ) -> None:
        """See `EngineLoop` for the options; `steps` replaces the plain step log."""
        self._trace = trace
        self._scheduler = scheduler
        self._slo = slo
        self._steps = StepLog() if steps is None else steps
        self._stop_asked = False
        self._loop = EngineLoop(
            scheduler,
            load,
            self._steps,
            polls=polls,
            check_every=check_every,
            progress=progress,
            progress_every=progress_every,
        )

    def observe(self, *observers: Observer) -> None:
        """Let `observers` look at every iteration; before `run`."""
        self._loop.observers += observers

    def stop(self) -> None:
        """Let `run` return before its next iteration; safe in a signal handler."""
        self._stop_asked = True

    @abstractmethod
    def run(self) -> bool:
        """Run until nothing is left to do; False if `stop` ended it before that.

        Raises:
            PolicyError: the policy raised, asked for something impossible, or left work that can
                never run.
        """

    @property
    def device_log(self) -> DeviceLog | None:
        """What the device was like during the run; None if nobody looked."""
        return None

    @property
    def num_iterations(self) -> int:
        """Iterations that ended."""
        return len(self._steps)

    @property
    def ended(self) -> RequestLog:
        """The requests that have finished or were refused; after `record` all released ones."""
        return self._loop.ended

    @property
    def num_released(self) -> int:
        """Requests that were handed over, refused ones included."""
        return len(self._loop.live) + len(self._loop.ended)

    def books_hold(self) -> bool:
        """Whether all invariants hold, so that `record` can be trusted; after an exception."""
        try:
            self._scheduler.check()
            self._loop.check()
        except (AssertionError, LookupError):
            return False
        return True

    def record(self, interrupted: str | None = None) -> RunRecord:
        """What happened so far; after `run` returned or raised, and nothing can run after it.

        Asked once more it says the same.
        """
        kv_cache = self._scheduler.kv_cache
        tokens = self._scheduler.finish_log()
        self._loop.close()
        return RunRecord(
            trace=self._trace,
            requests=self._loop.ended,
            steps=self._steps,
            tokens=tokens,
            total_blocks=kv_cache.total_blocks,
            block_size=kv_cache.block_size,
            end_time=self._loop.now,
            slo=self._slo,
            interrupted=interrupted,
            host_blocks=kv_cache.host_blocks,
            num_unswapped=self._scheduler.num_unswapped,
        )
