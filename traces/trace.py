"""The columnar `Trace`: one array a column, a million requests in a few megabytes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from schedsim.errors import TraceError

FloatColumn = npt.NDArray[np.float64]
IntColumn = npt.NDArray[np.int64]
TokenColumn = npt.NDArray[np.int32]
BoolColumn = npt.NDArray[np.bool_]

MAX_TOKENS = 2**31 - 1  # token columns are int32


@dataclass(frozen=True, slots=True)
class TraceSource:
    """Where a trace came from and what became of its rows: read = kept + the sum of dropped.

    `name` and `sha256` are those of the file read. `start_ns` is the UTC time of `arrival` 0 in
    nanoseconds since 1970, None where the source has no absolute clock. `origin` says what our own
    Parquet or JSONL files, and overlays, were made from; empty for a trace read at first hand.
    """

    name: str
    format: str
    sha256: str | None = None
    rows_read: int = 0
    dropped: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    notes: tuple[str, ...] = ()
    start_ns: int | None = None
    origin: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class PromptBlocks:
    """What the prompts share: for each request a chain of block hash ids, as one ragged array.

    Request i has `ids[offsets[i]:offsets[i + 1]]`; equal chains up to a block mean equal tokens up
    to its end. Ids are global to the trace. A last id may stand for a partial block; the chain may
    also leave the partial block out, or be empty where nothing is known.
    """

    block_size: int
    offsets: IntColumn
    ids: IntColumn


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """A request trace as columns of equal length, ordered by arrival; it has at least one row.

    `arrival` is in seconds, non-decreasing, from 0; `has_arrivals` is false where the source holds
    no arrival times (then a run needs an arrival process, and `arrival` is all zero, or, in a trace
    of sessions, the time since the request's session began). `prompt_tokens` and `output_tokens`
    are at least 1. `parent` is the row whose answer a request waits for (-1: none; always an
    earlier row of the same session) and `think_s` the time between; both stand or neither does. A
    request with a parent is released by the closed loop, and its `arrival` says only when it came
    in the recording. `session` and `tenant` are small ids, -1 for none; `tenant_names` names the
    tenants. In `ttft_slo`, `tpot_slo` (seconds) and `predicted_output` (tokens) NaN means none.

    Raises:
        TraceError: columns of different lengths or values outside these rules.
    """

    arrival: FloatColumn
    prompt_tokens: TokenColumn
    output_tokens: TokenColumn
    source: TraceSource
    has_arrivals: bool = True
    max_output_tokens: TokenColumn | None = None
    session: IntColumn | None = None
    parent: IntColumn | None = None
    think_s: FloatColumn | None = None
    tenant: IntColumn | None = None
    tenant_names: tuple[str, ...] = ()
    priority: IntColumn | None = None
    ttft_slo: FloatColumn | None = None
    tpot_slo: FloatColumn | None = None
    predicted_output: FloatColumn | None = None
    blocks: PromptBlocks | None = None

    def __post_init__(self) -> None:
        check_columns(self)

    def __len__(self) -> int:
        return len(self.arrival)

    def columns(self) -> dict[str, npt.NDArray[Any]]:
        """The columns that are present, by name, in the order of `COLUMNS`."""
        named = ((name, getattr(self, name)) for name in COLUMNS)
        return {name: column for name, column in named if column is not None}


COLUMN_TYPES: Mapping[str, type[np.generic]] = MappingProxyType(
    {
        "arrival": np.float64,
        "prompt_tokens": np.int32,
        "output_tokens": np.int32,
        "max_output_tokens": np.int32,
        "session": np.int64,
        "parent": np.int64,
        "think_s": np.float64,
        "tenant": np.int64,
        "priority": np.int64,
        "ttft_slo": np.float64,
        "tpot_slo": np.float64,
        "predicted_output": np.float64,
    }
)
COLUMNS = tuple(COLUMN_TYPES)


def check_columns(trace: Trace) -> None:
    """Check every rule of `Trace`; called by its constructor.

    Raises:
        TraceError: names the column and the first row that breaks a rule.
    """
    if trace.arrival.ndim == 1 and not len(trace.arrival):
        raise TraceError(f"{trace.source.name}: a trace needs at least one request, this has none")
    for name, column in trace.columns().items():
        _check_shape(trace, name, column)
        for rule, broken in _RULES.get(name, ()):
            _reject(trace, name, rule, broken(column))
    _reject(trace, "arrival", "is before the row above", _falls(trace.arrival))
    _check_sessions(trace)
    if trace.tenant_names and trace.tenant is not None:
        unnamed = trace.tenant >= len(trace.tenant_names)
        _reject(trace, "tenant", f"has no name among {len(trace.tenant_names)}", unnamed)
    if trace.blocks is not None:
        _check_blocks(trace, trace.blocks)


def _below_one(column: npt.NDArray[Any]) -> BoolColumn:
    return np.asarray(column < 1)


def _below_none(column: npt.NDArray[Any]) -> BoolColumn:
    return np.asarray(column < -1)


def _not_a_time(column: npt.NDArray[Any]) -> BoolColumn:
    return np.asarray(~(np.isfinite(column) & (column >= 0)))


def _not_a_target(column: npt.NDArray[Any]) -> BoolColumn:
    return np.asarray(~(np.isnan(column) | (np.isfinite(column) & (column > 0))))


def _not_a_prediction(column: npt.NDArray[Any]) -> BoolColumn:
    return np.asarray(~(np.isnan(column) | (np.isfinite(column) & (column >= 0))))


_Rule = tuple[str, Callable[[npt.NDArray[Any]], BoolColumn]]
_RULES: Mapping[str, tuple[_Rule, ...]] = MappingProxyType(
    {
        "arrival": (("is negative or not a finite number", _not_a_time),),
        "prompt_tokens": (("is below 1", _below_one),),
        "output_tokens": (("is below 1", _below_one),),
        "max_output_tokens": (("is below 1", _below_one),),
        "session": (("is below -1", _below_none),),
        "parent": (("is below -1", _below_none),),
        "think_s": (("is negative or not a finite number", _not_a_time),),
        "tenant": (("is below -1", _below_none),),
        "ttft_slo": (("is neither positive nor NaN (none)", _not_a_target),),
        "tpot_slo": (("is neither positive nor NaN (none)", _not_a_target),),
        "predicted_output": (("is negative or infinite", _not_a_prediction),),
    }
)


def _falls(column: FloatColumn) -> BoolColumn:
    broken = np.zeros(len(column), dtype=np.bool_)
    broken[1:] = column[1:] < column[:-1]
    return broken


def _check_shape(trace: Trace, name: str, column: npt.NDArray[Any]) -> None:
    if column.ndim != 1 or len(column) != len(trace):
        raise TraceError(
            f"{trace.source.name}: column {name!r} has shape {column.shape}, "
            f"'arrival' has {len(trace)} rows; give every column one value a row"
        )
    wanted = np.dtype(COLUMN_TYPES[name])
    if column.dtype != wanted:
        raise TraceError(
            f"{trace.source.name}: column {name!r} is {column.dtype}, must be {wanted}; "
            f"convert it with .astype(numpy.{wanted})"
        )


def _reject(trace: Trace, name: str, rule: str, broken: BoolColumn) -> None:
    if broken.any():
        row = int(np.argmax(broken))
        value = trace.columns()[name][row]
        raise TraceError(f"{trace.source.name}, row {row}, {name}: {value} {rule}")


def _check_sessions(trace: Trace) -> None:
    if (trace.parent is None) != (trace.think_s is None):
        raise TraceError(
            f"{trace.source.name}: 'parent' and 'think_s' belong together; give both or neither"
        )
    if trace.parent is None:
        return
    rows = np.arange(len(trace))
    _reject(trace, "parent", "is not an earlier row", trace.parent >= rows)
    if trace.session is not None:
        children = trace.parent >= 0
        differs = np.zeros(len(trace), dtype=np.bool_)
        differs[children] = trace.session[children] != trace.session[trace.parent[children]]
        _reject(trace, "session", "is not the session of the row's parent", differs)


def _check_blocks(trace: Trace, blocks: PromptBlocks) -> None:
    name = trace.source.name
    offsets = blocks.offsets
    if blocks.block_size < 1:
        raise TraceError(f"{name}: blocks.block_size is {blocks.block_size}, must be at least 1")
    if offsets.dtype != np.int64 or blocks.ids.dtype != np.int64:
        raise TraceError(f"{name}: blocks.offsets and blocks.ids must be int64")
    lengths = np.diff(offsets)
    if (
        len(offsets) != len(trace) + 1
        or offsets[0] != 0
        or offsets[-1] != len(blocks.ids)
        or (lengths < 0).any()
    ):
        raise TraceError(
            f"{name}: blocks.offsets must rise from 0 to the {len(blocks.ids)} ids "
            f"in {len(trace) + 1} values"
        )
    needed = -(-trace.prompt_tokens.astype(np.int64) // blocks.block_size)
    if (lengths > needed).any():
        row = int(np.argmax(lengths > needed))
        raise TraceError(
            f"{name}, row {row}, blocks: {lengths[row]} blocks of {blocks.block_size} tokens for "
            f"a prompt of {trace.prompt_tokens[row]}, which has {needed[row]}"
        )
