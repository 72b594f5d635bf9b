"""Where the runs of a sweep run: this process, the cores of this machine, or a Ray cluster."""

import logging
import multiprocessing
import os
import signal
import threading
from collections import deque
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait as wait_for_any
from types import TracebackType
from typing import Any, Protocol

from schedsim.errors import ConfigError, ExecutionError
from schedsim.sweep.points import Point
from schedsim.sweep.rows import Row, Runner

INSTALL_RAY = "pip install 'schedsim[ray]' brings it; or leave --backend ray out"


class SweepBackend(Protocol):
    """Runs points in any order; a context, at whose end nothing of it runs any more."""

    room: int
    """How many points to have under way."""

    def submit(self, point: Point) -> None:
        """Begin, or put in line."""
        ...

    def next_row(self) -> Row:
        """The row of a point that was submitted, as soon as one is there.

        Raises:
            ExecutionError: the worker that ran it is gone.
        """
        ...

    def __enter__(self) -> "SweepBackend": ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class Here:
    """One after the other, in this process."""

    room = 1

    def __init__(self) -> None:
        self._run = Runner()
        self._waiting: deque[Point] = deque()

    def submit(self, point: Point) -> None:
        self._waiting.append(point)

    def next_row(self) -> Row:
        return self._run(self._waiting.popleft())

    def __enter__(self) -> "Here":
        return self

    def __exit__(self, *_: object) -> None:
        self._waiting.clear()


class Cores:
    """As many processes as asked for. They end with this one, however that ends."""

    def __init__(self, jobs: int) -> None:
        self.room = 2 * jobs
        # spawned, not forked: threads and locks of this process do not come along
        self._pool = ProcessPoolExecutor(
            jobs, multiprocessing.get_context("spawn"), initializer=_begin_worker
        )
        self._running: set[Future[Row]] = set()

    def submit(self, point: Point) -> None:
        try:
            self._running.add(self._pool.submit(_run_in_worker, point))
        except BrokenProcessPool:
            raise _worker_gone() from None

    def next_row(self) -> Row:
        done, _ = wait(self._running, return_when=FIRST_COMPLETED)
        future = done.pop()
        self._running.remove(future)
        try:
            return future.result()
        except BrokenProcessPool:
            raise _worker_gone() from None

    def __enter__(self) -> "Cores":
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        if kind is not None:  # what still runs would be waited for, for as long as it takes
            for worker in multiprocessing.active_children():
                worker.terminate()


class RayCluster:
    """The workers of the Ray cluster at an address, else of one on this machine.

    They read traces and policies at the paths of the configuration, so they need the same files.
    Ray runs again what a worker had when it was lost.
    """

    def __init__(self, jobs: int | None, address: str | None) -> None:
        """Connect; `jobs` is how many workers one on this machine has.

        Raises:
            ConfigError: Ray is not installed, or nobody answers at the address.
        """
        try:
            import ray
        except ModuleNotFoundError:
            raise ConfigError(f"--backend ray: Ray is not installed; {INSTALL_RAY}") from None
        self._ray: Any = ray
        where = {"num_cpus": jobs} if address is None else {"address": address}
        try:
            self._ray.init(**where, log_to_driver=False, logging_level=logging.ERROR)
        except ConnectionError as error:
            raise ConfigError(
                f"no Ray cluster at RAY_ADDRESS={address}: {error}; start one, or unset it"
            ) from None
        self.room = 2 * max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        self._task = self._ray.remote(max_retries=-1)(_run_in_worker)
        self._running: list[Any] = []

    def submit(self, point: Point) -> None:
        self._running.append(self._task.remote(point))

    def next_row(self) -> Row:
        (done,), self._running = self._ray.wait(self._running)
        row: Row = self._ray.get(done)
        return row

    def __enter__(self) -> "RayCluster":
        return self

    def __exit__(self, *_: object) -> None:
        self._ray.shutdown()


def choose_backend(name: str, jobs: int | None, address: str | None) -> SweepBackend:
    """The backend of this name, `local` or `ray`, with `jobs` processes; None: one a core.

    `address` is that of a Ray cluster.

    Raises:
        ConfigError: what it needs is not installed.
    """
    if name == "ray":
        return RayCluster(jobs, address)
    cores = jobs or len(os.sched_getaffinity(0))
    return Here() if cores == 1 else Cores(cores)


_runner: list[Runner] = []


def _run_in_worker(point: Point) -> Row:
    """Run in a process that serves one sweep, and keeps its trace from run to run."""
    if not _runner:
        _runner.append(Runner())
    return _runner[0](point)


def _begin_worker() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that we work for
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "a worker has a parent"
    wait_for_any([parent.sentinel])
    os._exit(1)


def _worker_gone() -> ExecutionError:
    return ExecutionError(
        "a worker process was killed, perhaps for want of memory; what had finished is kept: run "
        "the same command again to go on, with fewer --jobs if memory is short"
    )
