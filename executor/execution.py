"""`Execution`: a run in real time, on a device. The clock is passed in."""

import math
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple, Protocol

from schedsim.backend import Backend
from schedsim.executor.doorbell import Doorbell
from schedsim.executor.monitor import DeviceMonitor
from schedsim.executor.timer import DeviceTime
from schedsim.load import Load
from schedsim.request import Request
from schedsim.results import SLO
from schedsim.results.device_log import DeviceLog
from schedsim.scheduler import Batch, Scheduler
from schedsim.traces.trace import Trace

LONGEST_NAP = 0.05
"""Seconds after which an idle engine looks whether `stop` was called."""

PROGRESS_EVERY = 8


class Runner(Protocol):
    """What performs the batches; what it prepares and launches is its own business.

    `launches_ahead`: `launch` returns before the device has begun, so that the next batch can be
    launched while one runs.
    """

    launches_ahead: ClassVar[bool]

    @property
    def described(self) -> dict[str, Any]:
        """What the manifest says of it: `kernels` and `padding`.

        Which kernels read the cache, `paged` or `contiguous`, None where that does not depend on
        the memory manager; the sizes of batches as `schedsim.costs.features.Padding` has them, None
        for none.
        """

    def warm_up(self) -> None:
        """Before the first batch: pay for first calls."""

    def prepare(self, batch: Batch, padding: Sequence[Request] = ()) -> Any:
        """The host's work for a batch, just decided."""

    def launch(self, prepared: Any) -> Any:
        """Give the device what `prepare` gave, after all that was launched before."""

    def wait(self, launched: Any) -> DeviceTime:
        """Return when the host can see the tokens of the oldest batch that was launched."""

    def release(self) -> None:
        """The run has come to its end: the next one may use what the device holds for it.

        Not called after a run that broke off, whatever the reason.
        """


class _Decided(NamedTuple):
    """A batch, when it was decided and from when it could run (s); what `launch` gave, if it was
    launched while the one before it ran, which then is part of the time before it could."""

    batch: Batch
    prepared: Any
    decided_at: float
    ready_at: float
    launched: Any = None


class Execution(Backend):
    """Runs `load` through `scheduler` and every batch on `runner`.

    Time is what `clock` says since `run` began. A request is released when the engine looks and it
    is due. Each iteration: `decided_at` (arrivals taken, then the decision), the batch's tensors,
    `start`, the device's work, `end` when the host can see the tokens, then the books. Observers
    look after `end`, so their time is in no iteration but in the gap to the next one. With
    overlapped decisions the next iteration is decided, observed and its tensors made once the
    device has its work, and it starts as soon as the books are done. A runner that launches ahead
    is given it at once: then it starts when the one before ends.
    """

    def __init__(
        self,
        trace: Trace,
        scheduler: Scheduler,
        load: Load,
        runner: Runner,
        *,
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        doorbell: Doorbell | None = None,
        monitor: DeviceMonitor | None = None,
        slo: SLO | None = None,
        check_every: int | None = None,
        progress: Callable[[float, int], None] | None = None,
    ) -> None:
        """`clock` never goes back; `sleep` may return early. See `EngineLoop` for the options.

        `doorbell` and `monitor` run beside the engine, on the same clock.
        """
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
        self._beside = [part for part in (doorbell, monitor) if part is not None]
        self._monitor = monitor
        if doorbell is not None:
            self._loop.handed_over = doorbell.times
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
        for part in self._beside:
            part.start(self._origin)
        try:
            has_ended = self._run_all()
        finally:
            for part in self._beside:
                part.stop()
        if has_ended:
            self._runner.release()
        return has_ended

    @property
    def device_log(self) -> DeviceLog | None:
        return None if self._monitor is None else self._monitor.log

    def _run_all(self) -> bool:
        following: _Decided | None = None
        while not self._stop_asked:
            if following is not None:
                ahead = following.launched is not None
                following = self._run(following, self._last_end if ahead else self._now())
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
        return _Decided(batch, prepared, now, self._now())

    def _run(self, decided: _Decided, start: float) -> _Decided | None:
        """Run a batch; what was decided in the meantime, and launched if the runner can."""
        loop, runner, batch = self._loop, self._runner, decided.batch
        following = None
        launched = decided.launched
        if launched is None:
            launched = runner.launch(decided.prepared)
        if loop.overlaps:
            following = self._look(self._now())
            if following is not None and runner.launches_ahead:
                ahead = runner.launch(following.prepared)
                following = following._replace(launched=ahead, ready_at=self._now())
        worked, idle = runner.wait(launched)
        end = self._now()
        if not loop.overlaps:
            loop.announce(batch)
        try:
            loop.finish(batch, start, end)
        finally:
            if len(self._steps) > len(self._steps.gpu_s):
                host_s = decided.ready_at - decided.decided_at
                gap_s = (start if loop.overlaps else decided.decided_at) - self._last_end
                if decided.launched is not None and idle is not None:
                    gap_s = idle
                self._steps.note_device(host_s, worked, gap_s)
        self._last_end = end
        return following

    def _now(self) -> float:
        return self._clock() - self._origin

    def _wait_until(self, due: float) -> None:
        """Sleep until `due` or `stop`; the wait is no gap of the next iteration."""
        self._last_end = math.nan
        while not self._stop_asked and (left := due - self._now()) > 0:
            self._sleep(min(left, LONGEST_NAP))
