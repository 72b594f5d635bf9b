"""Several traces' columns, blocks and sources as one, with their ids kept apart."""

from collections import Counter
from typing import Any

import numpy as np
import numpy.typing as npt

from schedsim.errors import TraceError
from schedsim.traces.own_format import describe_origin
from schedsim.traces.selection import ColumnMap
from schedsim.traces.trace import COLUMN_TYPES, COLUMNS, IntColumn, PromptBlocks, Trace, TraceSource

# What a row holds in a column that its trace does not have.
_ABSENT = {
    "session": -1,
    "parent": -1,
    "think_s": 0.0,
    "tenant": -1,
    "priority": 0,
    "ttft_slo": np.nan,
    "tpot_slo": np.nan,
    "predicted_output": np.nan,
}


def join_columns(traces: list[Trace]) -> tuple[ColumnMap, tuple[str, ...]]:
    """All columns that any trace has, one trace after the other, and the tenants' names.

    Raises:
        TraceError: some traces have output limits and others do not.
    """
    tenant_names: dict[str, int] = {}
    parts = [_shifted(trace, tenant_names, traces[:index]) for index, trace in enumerate(traces)]
    columns: ColumnMap = {}
    for name in COLUMNS:
        having = [name in part for part in parts]
        if not any(having):
            continue
        if name not in _ABSENT and not all(having):
            lacking = traces[having.index(False)].source.name
            raise TraceError(f"{lacking} has no column {name!r}, others do; give it to all or none")
        columns[name] = np.concatenate(
            [
                part[name] if name in part else _absent(name, len(trace))
                for part, trace in zip(parts, traces, strict=True)
            ]
        )
    return columns, tuple(tenant_names)


def _absent(name: str, rows: int) -> npt.NDArray[Any]:
    return np.full(rows, _ABSENT[name], dtype=COLUMN_TYPES[name])


def _shifted(trace: Trace, tenant_names: dict[str, int], before: list[Trace]) -> ColumnMap:
    """A trace's columns with rows, sessions and tenants numbered after those of `before`."""
    columns = dict(trace.columns())
    if "parent" in columns:
        rows = sum(map(len, before))
        columns["parent"] = np.where(columns["parent"] >= 0, columns["parent"] + rows, -1)
    if "session" in columns:
        highest = sum(_next_id(other.session) for other in before)
        columns["session"] = np.where(columns["session"] >= 0, columns["session"] + highest, -1)
    if "tenant" in columns:
        columns["tenant"] = _rename_tenants(trace, tenant_names)
    return columns


def _next_id(column: IntColumn | None) -> int:
    return 0 if column is None else int(column.max()) + 1


def _rename_tenants(trace: Trace, tenant_names: dict[str, int]) -> IntColumn:
    """Number a trace's tenants by name; nameless ones are named after their trace."""
    assert trace.tenant is not None, "only a trace with tenants has them renamed"
    names = trace.tenant_names or tuple(
        f"{trace.source.name}:{tenant}" for tenant in range(_next_id(trace.tenant))
    )
    codes = [tenant_names.setdefault(name, len(tenant_names)) for name in names]
    return np.array([*codes, -1], dtype=np.int64)[trace.tenant]  # -1 picks the last entry


def join_blocks(traces: list[Trace]) -> PromptBlocks | None:
    """The block chains of all traces, ids kept apart; a trace without blocks has empty chains.

    Raises:
        TraceError: the block sizes differ.
    """
    with_blocks = [trace for trace in traces if trace.blocks is not None]
    if not with_blocks:
        return None
    sizes = [trace.blocks.block_size for trace in with_blocks if trace.blocks is not None]
    if len(set(sizes)) > 1:
        names = ", ".join(
            f"{trace.source.name}: {size}" for trace, size in zip(with_blocks, sizes, strict=True)
        )
        raise TraceError(f"the traces' prompt blocks differ in size ({names}); combine like ones")
    lengths: list[IntColumn] = []
    ids: list[IntColumn] = []
    next_id = 0
    for trace in traces:
        if trace.blocks is None:
            lengths.append(np.zeros(len(trace), dtype=np.int64))
            continue
        distinct, dense = np.unique(trace.blocks.ids, return_inverse=True)
        lengths.append(np.diff(trace.blocks.offsets))
        ids.append(dense.astype(np.int64) + next_id)
        next_id += len(distinct)
    offsets = np.concatenate([np.zeros(1, dtype=np.int64), np.cumsum(np.concatenate(lengths))])
    return PromptBlocks(sizes[0], offsets, np.concatenate(ids))


def join_sources(traces: list[Trace], how: str, start_ns: int | None) -> TraceSource:
    """One source for all: rows read and dropped added up, every origin named."""
    dropped: Counter[str] = Counter()
    notes: list[str] = []
    for trace in traces:
        dropped.update(trace.source.dropped)
        notes.extend(f"{trace.source.name}: {note}" for note in trace.source.notes)
    return TraceSource(
        name=" + ".join(trace.source.name for trace in traces),
        format=how,
        rows_read=sum(trace.source.rows_read for trace in traces),
        dropped=dict(dropped),
        notes=tuple(notes),
        start_ns=start_ns,
        origin=f"{how} of {'; '.join(describe_origin(trace.source) for trace in traces)}",
    )
