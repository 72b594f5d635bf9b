"""A progress bar on stderr with the run's time and ETA; silent where stderr is no terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

Report = Callable[[float, int], None]


@contextmanager
def progress_bar(label: str, total: int, quiet: bool, unit: str) -> Iterator[Report | None]:
    """Gives a function to report (seconds of the run, ended requests) to; None when silent."""
    if quiet or not sys.stderr.isatty():
        yield None
        return
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("requests, {task.fields[seconds]:,.0f} {task.fields[unit]}, ETA"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with progress:
        task = progress.add_task(label, total=total, seconds=0.0, unit=unit)

        def report(seconds: float, ended: int) -> None:
            progress.update(task, completed=ended, seconds=seconds)

        yield report


@contextmanager
def count_progress(
    label: str, total: int, quiet: bool, unit: str = "files"
) -> Iterator[Callable[[], None]]:
    """Gives a function to call after each of `total` files or runs; it does nothing when silent."""
    if quiet or not sys.stderr.isatty():
        yield lambda: None
        return
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(f"{unit}, ETA"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
    )
    with progress:
        task = progress.add_task(label, total=total)
        yield lambda: progress.advance(task)
