"""`Trail`: what a run decided in few bytes an iteration: a digest, who came in, who had to go."""

from array import array
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import blake2b
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

from schedsim.errors import ResultError
from schedsim.request import Request
from schedsim.results.decision_file import DecisionFile
from schedsim.results.directory import RunDirectory
from schedsim.results.quantiles import Ints
from schedsim.results.step_log import INT_COLUMNS
from schedsim.results.stored_run import StoredRun, float_column, load_table
from schedsim.scheduler.batch import Batch, Completion, TransferKind
from schedsim.scheduler.scheduler import Scheduler

if TYPE_CHECKING:
    import pyarrow

TRAIL = "trail.parquet"

_KINDS = tuple(TransferKind)

Source = Literal["decisions", "trail", "sizes"]


class Events(NamedTuple):
    """Requests to which something happened, in order, and in which iterations."""

    iteration: Ints
    request: Ints

    def __len__(self) -> int:
        return len(self.request)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Events) and all(map(np.array_equal, self, other))

    def __hash__(self) -> int:
        raise TypeError("events are compared, not looked up")


@dataclass(frozen=True, slots=True, eq=False)
class Trail:
    """The decisions of a run. Equal digests of an iteration say that it was decided alike.

    `source` says what a digest is of: `decisions`, the whole record of the iteration; `trail`,
    who runs how many tokens on which blocks, who was preempted, what was copied; `sizes`, the
    columns of the steps. Digests of different sources are not to be compared. `preempted` is None
    where nobody wrote down who it was.
    """

    source: Source
    digests: Ints
    admitted: Events
    preempted: Events | None

    def __len__(self) -> int:
        return len(self.digests)

    def first_difference(self, other: "Trail") -> int | None:
        """The first iteration, from 0, that the two decided differently; None if there is none."""
        assert self.source == other.source, "digests of different things say nothing"
        common = min(len(self), len(other))
        differs = np.flatnonzero(self.digests[:common] != other.digests[:common])
        if len(differs):
            return int(differs[0])
        return None if len(self) == len(other) else common


class TrailWriter:
    """Collects the trail of a run and writes trail.parquet, a row an iteration, at its end.

    Where a decision record takes tens of kilobytes and milliseconds an iteration, this takes some
    bytes and a fraction of a millisecond, so that an execution can be watched without being slowed
    down.
    """

    def __init__(self, directory: RunDirectory) -> None:
        """Nothing is written before `close`."""
        self._directory = directory
        self._open: deque[tuple[int, list[int], list[int]]] = deque()
        self._rows: list[tuple[int, list[int], list[int]]] | None = []

    def scheduled(self, scheduler: Scheduler, batch: Batch, arrived: list[Request]) -> None:
        """Note a decision, after `schedule` returned it."""
        self._open.append(
            (_digest_of(scheduler, batch), _ids(batch.admitted), _ids(batch.preempted))
        )

    def completed(
        self, scheduler: Scheduler, completion: Completion, start: float, end: float
    ) -> None:
        """Its iteration ended, so that it is part of the run."""
        if self._rows is not None:
            self._rows.append(self._open.popleft())

    def close(self) -> None:
        """Write the file; no effect after `abort`.

        Raises:
            OutputError: it cannot be written.
        """
        if self._rows is not None:
            self._directory.write_parquet(TRAIL, _table(self._rows))
            self._rows = None

    def abort(self) -> None:
        """Drop what was collected; no effect after `close`."""
        self._rows = None


def source_of(run: StoredRun) -> Source:
    """The most that a run wrote of its decisions: a record, a trail, or its tables alone."""
    if run.has_decisions:
        return "decisions"
    return "trail" if (run.path / TRAIL).is_file() else "sizes"


def trail_of(run: StoredRun, source: Source | None = None) -> Trail:
    """The trail of a run from `source`, which it wrote; by default from the most that it wrote.

    Raises:
        ResultError: a file is damaged.
    """
    match source or source_of(run):
        case "decisions":
            return _of_decisions(DecisionFile(run.path))
        case "trail":
            return _of_table(load_table(run.path / TRAIL))
        case "sizes":
            return of_sizes(run)


def of_sizes(run: StoredRun) -> Trail:
    """The trail as the tables tell it: only the first admission of each request, no victims.

    Raises:
        ResultError: the steps lack a column.
    """
    steps = run.steps
    missing = set(INT_COLUMNS) - set(steps.column_names)
    if missing:
        raise ResultError(
            f"{run.path / 'steps.parquet'} lacks {', '.join(sorted(missing))}; run it again with "
            "this version of schedsim"
        )
    # What decisions alone set, whatever the clock says: the columns that hold whole numbers.
    columns = np.column_stack([steps.column(name).to_numpy() for name in INT_COLUMNS])
    digests = [_digest(row.tobytes()) for row in np.ascontiguousarray(columns, dtype=np.int64)]
    admitted = float_column(run.requests, "admitted")
    there = np.flatnonzero(~np.isnan(admitted))
    place = np.searchsorted(float_column(steps, "decided_at"), admitted[there])
    order = np.argsort(place, kind="stable")
    return Trail(
        "sizes", np.array(digests, dtype=np.int64), Events(place[order], there[order]), None
    )


def _of_decisions(file: DecisionFile) -> Trail:
    digests, admitted, preempted = [], [], []
    for number, line in file.lines():
        record = file.record(number, line)
        digests.append(_digest(line.encode()))
        came = [entry[0] for entry in record["scheduled"] if entry[2] in ("new", "resume")]
        admitted.append(_numbers([*came, *(name for name, _ in record.get("swapped_in", []))]))
        preempted.append(_numbers(record["preempted"]))
    return Trail(
        "decisions", np.array(digests, dtype=np.int64), _events(admitted), _events(preempted)
    )


def _of_table(table: "pyarrow.Table") -> Trail:
    digests = table.column("digest").to_numpy()
    listed = (table.column(name).to_pylist() for name in ("admitted", "preempted"))
    admitted, preempted = (_events(ids) for ids in listed)
    return Trail("trail", digests, admitted, preempted)


def _table(rows: list[tuple[int, list[int], list[int]]]) -> "pyarrow.Table":
    import pyarrow as pa

    ids = pa.list_(pa.int64())
    kinds = {"digest": pa.int64(), "admitted": ids, "preempted": ids}
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    return pa.table(
        {name: pa.array(c, kinds[name]) for name, c in zip(kinds, columns, strict=True)}
    )


def _events(ids: Iterable[list[int]]) -> Events:
    pairs = [(place, request) for place, found in enumerate(ids) for request in found]
    columns = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    return Events(columns[:, 0], columns[:, 1])


def _digest_of(scheduler: Scheduler, batch: Batch) -> int:
    """Of everything that was decided; block tables are those that the batch runs on."""
    numbers = array("q", _ids(batch.preempted))
    for request, tokens, _, context in batch.expand():
        numbers.extend((-1, request.id, tokens, context))
        numbers.extend(scheduler.kv_cache.block_table(request))
    for request, kind, pairs in batch.transfers:
        numbers.extend((-2, request.id, _KINDS.index(kind)))
        for pair in pairs:
            numbers.extend(pair)
    return _digest(numbers.tobytes())


def _digest(content: bytes) -> int:
    return int.from_bytes(blake2b(content, digest_size=8).digest(), "little", signed=True)


def _ids(requests: Iterable[Request]) -> list[int]:
    return [request.id for request in requests]


def _numbers(names: Iterable[str]) -> list[int]:
    """Ids from the names `r<id>` of a decision record."""
    return [int(name[1:]) for name in names]
