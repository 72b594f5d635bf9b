"""`RequestLog`: one row a released request, as columns, so that who has ended need not be kept."""

from collections.abc import Iterable, Iterator
from operator import attrgetter
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schedsim.request import Request, Status

STATUSES = (Status.FINISHED, Status.REJECTED, Status.FAILED, Status.UNFINISHED)
"""The statuses of results, in the order of their codes."""

CODES = {status: code for code, status in enumerate(STATUSES)}
_UNFINISHED = CODES[Status.UNFINISHED]

ROWS_AT_ONCE = 4096
"""Rows that are turned into columns together: an array costs the same for one as for a hundred."""


class ReleasedRequest(NamedTuple):
    """What is kept of a request: the fields are those of `Request`; times in seconds."""

    id: int
    tenant: int
    arrival: float
    released: float | None
    admitted: float | None
    first_token: float | None
    finished: float | None
    requeue_s: float
    prompt_tokens: int
    num_generated_tokens: int
    cached_tokens: int
    recomputed_tokens: int
    preemptions: int
    status: Status
    reason: str


TIMES = ("arrival", "released", "admitted", "first_token", "finished", "requeue_s")
_row_of = attrgetter(
    *("_generated" if name == "num_generated_tokens" else name for name in ReleasedRequest._fields)
)


class RequestLog:
    """Requests in the order in which they ended; `add` each once, when nothing of it changes more.

    None decodes any more, so what it has emitted is real.

    A status that is none of `STATUSES` counts as `UNFINISHED`. Eight bytes a value.
    """

    __slots__ = ("_chunks", "_num_chunked", "_rows", "reasons")

    def __init__(self, requests: Iterable[Request] = ()) -> None:
        self.reasons: dict[int, str] = {}
        self._rows: list[tuple[Any, ...]] = []
        self._chunks: dict[str, list[npt.NDArray[Any]]] = {
            name: [np.empty(0, np.float64 if name in TIMES else np.int64)]
            for name in ReleasedRequest._fields[:-1]
        }
        self._num_chunked = 0
        for request in requests:
            self.add(request)

    def __len__(self) -> int:
        return self._num_chunked + len(self._rows)

    def __iter__(self) -> Iterator[ReleasedRequest]:
        """The rows; O(1) each."""
        columns = {name: self.column(name).tolist() for name in self._chunks}
        for name in TIMES:
            columns[name] = [None if time != time else time for time in columns[name]]
        columns["status"] = [STATUSES[code] for code in columns["status"]]
        columns["reason"] = [self.reasons.get(request_id, "") for request_id in columns["id"]]
        yield from map(ReleasedRequest, *columns.values())

    def add(self, request: Request) -> None:
        """Write down a request as it is now."""
        self._rows.append(_row_of(request))
        if request.reason:
            self.reasons[request.id] = request.reason
        if len(self._rows) == ROWS_AT_ONCE:
            self._chunk()

    def rejected(self) -> list[int]:
        """The ids of who was rejected, in order."""
        is_rejected = self.column("status") == CODES[Status.REJECTED]
        ids: list[int] = np.sort(self.column("id")[is_rejected]).tolist()
        return ids

    def column(self, name: str) -> npt.NDArray[Any]:
        """A column as float64, NaN for never, or int64; of `status` the codes."""
        self._chunk()
        return np.concatenate(self._chunks[name])

    def check(self) -> None:
        """Assert that every row is in all columns; O(pieces)."""
        for name, chunks in self._chunks.items():
            rows = sum(map(len, chunks))
            assert rows == self._num_chunked, f"{name} has {rows} rows of {self._num_chunked}"

    def _chunk(self) -> None:
        """Turn the rows into a piece of each column."""
        if not self._rows:
            return
        self._num_chunked += len(self._rows)
        values = dict(zip(ReleasedRequest._fields, zip(*self._rows, strict=True), strict=True))
        values["status"] = tuple(CODES.get(status, _UNFINISHED) for status in values["status"])
        for name, chunks in self._chunks.items():
            chunks.append(np.array(values[name], chunks[0].dtype))
        self._rows.clear()
