"""`Doorbell`: hands requests over at their times, also while the engine waits for the device."""

import sys
from collections.abc import Callable, Sequence

from schedsim.executor.beside import Beside

SWITCH_INTERVAL = 2e-4
"""Seconds after which Python lets the doorbell's thread have its turn; 5 ms by default."""

LONGEST_WAIT = 0.05
"""Seconds after which the thread looks whether it is to stop."""


class Doorbell(Beside):
    """Writes down when each request of an open load came into the engine's inbox.

    The engine empties its inbox when it looks, which is what its decisions depend on; `times`, by
    request, are when requests were put in, in seconds since the start of the run. A request whose
    time depends on another's end has none: it comes when the engine looks.
    """

    def __init__(self, due: Sequence[tuple[float, int]], clock: Callable[[], float]) -> None:
        """`due` are (time, request), the earliest first; `clock` tells real seconds."""
        super().__init__()
        self.times: dict[int, float] = {}
        self._due = due
        self._clock = clock
        self._switch_interval = sys.getswitchinterval()

    def start(self, origin: float) -> None:
        self._switch_interval = sys.getswitchinterval()
        sys.setswitchinterval(SWITCH_INTERVAL)
        super().start(origin)

    def stop(self) -> None:
        if self._thread is not None:
            super().stop()
            sys.setswitchinterval(self._switch_interval)

    def _work(self, origin: float) -> None:
        for due, request in self._due:
            while (left := due - (self._clock() - origin)) > 0:
                if self._stop.wait(min(left, LONGEST_WAIT)):
                    return
            self.times[request] = self._clock() - origin
