"""`DeviceClock`: when batches began and ended on a device that has several of them in line."""

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch

from schedsim.executor.timer import DeviceTime

EVENTS_IN_TURN = 4
"""Batches whose events are kept: two in line, the one that ended last, and one to be sure."""


class Stamp(NamedTuple):
    """A batch that was launched: its number, from 1 on."""

    number: int


class DeviceClock(Protocol):
    """`begin` and `end` around a batch's launch, then `wait` for it; in the same order."""

    def begin(self) -> None:
        """What the device is given from here on is the batch's."""

    def end(self) -> Stamp:
        """The device has been given all of it."""

    def wait(self, stamp: Stamp) -> DeviceTime:
        """Return when the batch is done: how long it took, and what lay before it."""


class CudaClock:
    """Events on the current stream; waiting for a batch's last one is the only synchronisation."""

    def __init__(self) -> None:
        make_event: Any = torch.cuda.Event  # torch leaves it untyped
        self._begins = [make_event(enable_timing=True) for _ in range(EVENTS_IN_TURN)]
        self._ends = [make_event(enable_timing=True) for _ in range(EVENTS_IN_TURN)]
        self._number = 0

    def begin(self) -> None:
        self._number += 1
        self._begins[self._number % EVENTS_IN_TURN].record()

    def end(self) -> Stamp:
        self._ends[self._number % EVENTS_IN_TURN].record()
        return Stamp(self._number)

    def wait(self, stamp: Stamp) -> DeviceTime:
        begin = self._begins[stamp.number % EVENTS_IN_TURN]
        end = self._ends[stamp.number % EVENTS_IN_TURN]
        end.synchronize()
        idle = None
        if stamp.number > 1:
            before = self._ends[(stamp.number - 1) % EVENTS_IN_TURN]
            idle = float(before.elapsed_time(begin)) / 1e3
        return DeviceTime(float(begin.elapsed_time(end)) / 1e3, idle)


class HostClock:
    """For a device that works while the host waits for it: Triton's interpreter on a CPU."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._spans: dict[int, tuple[float, float]] = {}
        self._begin = 0.0
        self._number = 0

    def begin(self) -> None:
        self._number += 1
        self._begin = self._clock()

    def end(self) -> Stamp:
        self._spans[self._number] = self._begin, self._clock()
        return Stamp(self._number)

    def wait(self, stamp: Stamp) -> DeviceTime:
        begin, end = self._spans.pop(stamp.number)
        return DeviceTime(end - begin, None)
