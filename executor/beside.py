"""`Beside`: work in a thread of its own while a run goes on."""

import threading
from abc import ABC, abstractmethod


class Beside(ABC):
    """Works from `start` to `stop`, which ends it where it waits; once."""

    def __init__(self) -> None:
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    @abstractmethod
    def _work(self, origin: float) -> None:
        """What the thread does, until it is done or `_stop` is set."""

    def start(self, origin: float) -> None:
        """Begin; `origin` is what the clock told at the start of the run."""
        self._thread = threading.Thread(target=self._work, args=(origin,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the thread; without effect if it does not run."""
        if self._thread is not None:
            self._stop.set()
            self._thread.join()
            self._thread = None
