"""`run_sweep`: every run of a sweep that is not there yet, and the searches for capacities."""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from schedsim.errors import ConfigError, OutputError
from schedsim.sweep.backends import SweepBackend
from schedsim.sweep.capacity import Search, unknown_figures
from schedsim.sweep.config import CapacityConfig, SweepConfig
from schedsim.sweep.points import Point
from schedsim.sweep.rows import Row
from schedsim.sweep.store import SweepStore


@dataclass(slots=True)
class Work:
    """A point with its runs so far: one, or those of its search, in the order of trying."""

    point: Point
    search: Search | None
    keys: list[str] = field(default_factory=list)
    value: float | None = None

    def next_run(self) -> Point | None:
        """The run to make next; None when there is none left."""
        if self.search is None:
            return None if self.keys else self.point
        self.value = self.search.next_value()
        return None if self.value is None else self.point.at(self.value)

    def tell(self, row: Row) -> None:
        """What came of the run that `next_run` gave."""
        self.keys.append(row["run"])
        if self.search is not None:
            assert self.value is not None, "a search is told of a value that it asked for"
            self.search.tell(self.value, row)


@dataclass(frozen=True, slots=True)
class Swept:
    """A sweep that came to its end: its work in order, and the runs that were made just now."""

    work: tuple[Work, ...]
    rows: dict[str, Row]
    made: int

    @property
    def failed(self) -> list[Row]:
        """The rows of runs that failed."""
        return [row for row in self.rows.values() if row["error"] is not None]


def make_work(points: Sequence[Point], capacity: CapacityConfig | None) -> list[Work]:
    """The work of a sweep before anything of it ran.

    Raises:
        ConfigError: a condition of the capacity cannot be read.
    """
    return [Work(p, None if capacity is None else Search(capacity)) for p in points]


def go_through(work: Work, rows: dict[str, Row]) -> Point | None:
    """Tell `work` of the runs that are there already; the first one that is not, if any."""
    while (run := work.next_run()) is not None:
        row = rows.get(run.key())
        if row is None:
            return run
        work.tell(row)
    return None


def run_sweep(
    config: SweepConfig,
    points: Sequence[Point],
    store: SweepStore,
    backend: SweepBackend,
    progress: Callable[[], None],
) -> Swept:
    """Make the runs that the store lacks, keep each as it ends, and write the dataset.

    `progress` is called for each point that is through.

    Raises:
        OutputError: the store cannot be written, or holds runs of another configuration.
        ExecutionError: a worker is gone; the runs that ended are kept.
        ConfigError: a condition names a figure that runs have not.
    """
    works = make_work(points, config.capacity)
    ready = deque((work, run) for work in works if (run := go_through(work, store.rows)))
    _check_left_over(works, store)
    store.begin()
    for _ in range(len(works) - len(ready)):
        progress()
    under_way: dict[str, Work] = {}
    made = 0
    while ready or under_way:
        while ready and len(under_way) < backend.room:
            work, run = ready.popleft()
            under_way[run.key()] = work
            backend.submit(run)
        row = backend.next_row()
        store.put(row)
        made += 1
        _check_figures(config, row)
        work = under_way.pop(row["run"])
        work.tell(row)
        following = go_through(work, store.rows)
        if following is None:
            progress()
        else:
            ready.appendleft((work, following))
    keys = list(dict.fromkeys(key for work in works for key in work.keys))
    _mark_capacities(works, store)
    store.finish(keys)
    return Swept(tuple(works), {key: store.rows[key] for key in keys}, made)


def _check_left_over(works: Sequence[Work], store: SweepStore) -> None:
    """Refuse a store with other runs; those of a search are there in its order, so all are known
    once it was told of them."""
    known = {key for work in works for key in work.keys}
    left_over = [key for key in store.rows if key not in known]
    if left_over:
        raise OutputError(
            f"{store.path} holds {len(left_over)} runs that this configuration does not name; "
            "choose another directory with --out, or put back what was taken out of it"
        )


def _check_figures(config: SweepConfig, row: dict[str, Any]) -> None:
    if config.capacity is None or row["error"] is not None:
        return
    unknown = unknown_figures(config.capacity.keep, row)
    if unknown:
        hint = "; goodput needs slo_ttft or slo_tpot in [settings]" * ("goodput" in unknown[0])
        raise ConfigError(f"capacity: a run has no figure {unknown[0]!r}{hint}")


def _mark_capacities(works: Sequence[Work], store: SweepStore) -> None:
    """Say in each row of a search whether it kept the conditions and whether it is the capacity."""
    for work in works:
        if work.search is not None:
            for key in work.keys:
                row = store.rows[key]
                value = row[_column(work.point)]
                row["kept"] = work.search.keeps(row)
                row["is_capacity"] = row["kept"] and value == work.search.kept


def _column(point: Point) -> str:
    assert point.searched is not None, "a search has a setting"
    return point.searched
