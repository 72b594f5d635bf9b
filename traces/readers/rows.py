"""`Rows`: what every reader fills in, and the checks that turn it into a `Trace`."""

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from schedsim.errors import TraceError
from schedsim.traces.readers.source_file import SourceFile
from schedsim.traces.selection import ColumnMap, take_rows
from schedsim.traces.trace import MAX_TOKENS, FloatColumn, IntColumn, PromptBlocks, Trace
from schedsim.traces.trace import TraceSource as Source

ZeroTokens = Literal["drop", "keep"]


@dataclass(slots=True)
class Rows:
    """The rows of one file before they are checked.

    `columns` has `prompt_tokens` and `output_tokens` as int64 and any other columns of `Trace`;
    `lines` the place of each row in the file, in `unit`s. `fields` maps a column to the name it has
    in the file. `tick_s` is the width of the clock's ticks where arrival times are quantised.
    """

    columns: ColumnMap
    lines: IntColumn
    fields: dict[str, str]
    unit: str = "line"
    blocks: PromptBlocks | None = None
    has_arrivals: bool = True
    tenant_names: tuple[str, ...] = ()
    tick_s: float | None = None
    start_ns: int | None = None
    dropped: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def place(self, row: int) -> str:
        """Where row `row` stands in the file, for messages."""
        return f"{self.unit} {self.lines[row]}"

    def take(self, rows: IntColumn) -> None:
        """Keep the rows `rows`, in that order."""
        self.columns, self.blocks = take_rows(self.columns, self.blocks, rows)
        self.lines = self.lines[rows]


def finish(
    rows: Rows,
    file: SourceFile,
    format_name: str,
    zero_tokens: ZeroTokens,
    spread_ticks: bool,
) -> Trace:
    """Check the rows, drop what cannot be used, order by time, build the trace.

    Raises:
        TraceError: a value out of range, no row left, or ticks to spread where there are none.
    """
    rows_read = len(rows.lines) + sum(rows.dropped.values())
    if not rows_read:
        raise TraceError(f"{file.path} holds no request; a trace needs at least one")
    for name in ("prompt_tokens", "output_tokens"):
        _check_tokens(rows, file, name)
    if "arrival" in rows.columns:
        _check_arrival(rows, file)
    _handle_zero_tokens(rows, zero_tokens)
    if not len(rows.lines):
        reasons = ", ".join(f"{count:,} {reason}" for reason, count in rows.dropped.items())
        raise TraceError(f"{file.path}: none of its {rows_read:,} rows can be used ({reasons})")
    _order_by_time(rows)
    if spread_ticks:
        _spread_ticks(rows, file)
    elif rows.tick_s is not None:
        rows.notes.append(
            f"arrival times stand in ticks of {rows.tick_s:g} s; "
            "requests of a tick arrive together unless ticks are spread"
        )
    source = Source(
        name=file.name,
        format=format_name,
        sha256=file.sha256,
        rows_read=rows_read,
        dropped=MappingProxyType(rows.dropped),
        notes=tuple(rows.notes),
        start_ns=rows.start_ns,
    )
    return build_trace(rows, source)


def build_trace(rows: Rows, source: Source) -> Trace:
    """A `Trace` from checked rows."""
    columns = dict(rows.columns)
    columns.setdefault("arrival", np.zeros(len(rows.lines)))
    for name in ("prompt_tokens", "output_tokens", "max_output_tokens"):
        if name in columns:
            columns[name] = columns[name].astype(np.int32)
    return Trace(
        source=source,
        has_arrivals=rows.has_arrivals,
        tenant_names=rows.tenant_names,
        blocks=rows.blocks,
        **columns,
    )


def _check_tokens(rows: Rows, file: SourceFile, name: str) -> None:
    column = rows.columns[name]
    for broken, problem, fix in (
        (column < 0, "is negative", "correct the value or take the row out"),
        (column > MAX_TOKENS, f"is above {MAX_TOKENS:,}", "correct the value"),
    ):
        if broken.any():
            row = int(np.argmax(broken))
            field_name = rows.fields.get(name, name)
            raise file.broken(rows.place(row), field_name, int(column[row]), problem, fix)


def _check_arrival(rows: Rows, file: SourceFile) -> None:
    arrival = rows.columns["arrival"]
    broken = ~(np.isfinite(arrival) & (arrival >= 0))
    if broken.any():
        row = int(np.argmax(broken))
        field_name = rows.fields.get("arrival", "arrival")
        problem = "is negative" if arrival[row] < 0 else "is not a finite number"
        fix = "times count from the start of the trace; correct the value"
        raise file.broken(rows.place(row), field_name, float(arrival[row]), problem, fix)


def _handle_zero_tokens(rows: Rows, zero_tokens: ZeroTokens) -> None:
    prompt, output = rows.columns["prompt_tokens"], rows.columns["output_tokens"]
    if zero_tokens == "keep":
        raised = int(np.count_nonzero((prompt == 0) | (output == 0)))
        rows.columns["prompt_tokens"] = np.maximum(prompt, 1)
        rows.columns["output_tokens"] = np.maximum(output, 1)
        if raised:
            rows.notes.append(f"{raised:,} rows with zero prompt or output tokens: raised to 1")
        return
    for reason, broken in (
        ("zero output tokens", output == 0),
        ("zero prompt tokens", (prompt == 0) & (output > 0)),
    ):
        if broken.any():
            rows.dropped[reason] = int(np.count_nonzero(broken))
    keep = (prompt > 0) & (output > 0)
    if not keep.all():
        rows.take(np.flatnonzero(keep))


def _order_by_time(rows: Rows) -> None:
    arrival = rows.columns.get("arrival")
    if arrival is None:
        return
    falls = int(np.count_nonzero(arrival[1:] < arrival[:-1]))
    if falls:
        if rows.has_arrivals and "parent" not in rows.columns:
            rows.notes.append(f"rows were not in time order ({falls:,} fell back): sorted")
        rows.take(np.argsort(arrival, kind="stable"))


def _spread_ticks(rows: Rows, file: SourceFile) -> None:
    if rows.tick_s is None:
        raise TraceError(
            f"{file.path}: its times do not stand in ticks, so there is nothing to spread; "
            "leave the spreading of ticks out"
        )
    rows.columns["arrival"] = spread_over_ticks(rows.columns["arrival"], rows.tick_s)
    rows.notes.append(f"requests of one tick spread evenly over its {rows.tick_s:g} s")


def spread_over_ticks(arrival: FloatColumn, tick_s: float) -> FloatColumn:
    """Spread the k requests of each tick evenly over it: at 0, 1/k, 2/k … of its width.

    A tick ends after `tick_s` or where the next begins. Row order is kept.
    """
    ticks, first, counts = np.unique(arrival, return_index=True, return_counts=True)
    width = np.full(len(ticks), tick_s)
    width[:-1] = np.minimum(width[:-1], np.diff(ticks))
    place = np.arange(len(arrival)) - np.repeat(first, counts)
    spread: FloatColumn = arrival + place * np.repeat(width / counts, counts)
    # Rounding must not carry a request past the next tick.
    ceiling = np.repeat(np.append(ticks[1:], np.inf), counts)
    return np.asarray(np.minimum(spread, ceiling))


def encode_names(names: list[str]) -> tuple[IntColumn, tuple[str, ...]]:
    """Small ids in order of first appearance, and the names; an empty name is -1."""
    codes: dict[str, int] = {}
    column = np.empty(len(names), dtype=np.int64)
    for row, name in enumerate(names):
        column[row] = codes.setdefault(name, len(codes)) if name else -1
    return column, tuple(codes)


def int_column(values: list[int]) -> npt.NDArray[Any]:
    """An int64 column; every value has been checked to fit."""
    return np.array(values, dtype=np.int64)
