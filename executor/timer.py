"""`Timer`: how long the device worked on a batch."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch


class DeviceTime(NamedTuple):
    """Seconds that the device worked on a batch, and that it had nothing to do just before.

    `idle` is None where the device works only while the host waits.
    """

    worked: float
    idle: float | None


class Timer(Protocol):
    """Measures one batch at a time: `begin`, the work, `end`, then `seconds`."""

    def begin(self) -> None:
        """The device's work is handed over from here on."""

    def end(self) -> None:
        """All work has been handed over."""

    def seconds(self) -> float:
        """Wait until the device has done it; what lay between `begin` and `end` on the device."""


class ClockTimer:
    """For a device that works while the host waits for it: a CPU."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._begin = self._end = 0.0

    def begin(self) -> None:
        self._begin = self._clock()

    def end(self) -> None:
        self._end = self._clock()

    def seconds(self) -> float:
        return self._end - self._begin


class CudaTimer:
    """Two events on the current stream; waiting for the second is the only synchronisation."""

    def __init__(self) -> None:
        make_event: Any = torch.cuda.Event  # torch leaves it untyped
        self._begin, self._end = make_event(enable_timing=True), make_event(enable_timing=True)

    def begin(self) -> None:
        self._begin.record()

    def end(self) -> None:
        self._end.record()

    def seconds(self) -> float:
        self._end.synchronize()
        return float(self._begin.elapsed_time(self._end)) / 1e3


def make_timer(device: torch.device, clock: Callable[[], float]) -> Timer:
    """The timer for `device`."""
    return CudaTimer() if device.type == "cuda" else ClockTimer(clock)
