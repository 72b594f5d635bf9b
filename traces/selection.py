"""Taking rows of a trace in a new order, with parents and block chains kept right."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from schedsim.traces.trace import BoolColumn, FloatColumn, IntColumn, PromptBlocks

ColumnMap = dict[str, npt.NDArray[Any]]


def relink(
    parent: IntColumn, think_s: FloatColumn, keep: BoolColumn
) -> tuple[IntColumn, FloatColumn]:
    """Parents and think times once the rows outside `keep` are gone.

    A kept row whose parent goes waits for its nearest kept ancestor instead, the think times on
    the way added up; with no kept ancestor it becomes a root, which comes at its own arrival.
    """
    orphans = np.flatnonzero((parent >= 0) & ~keep[parent])
    old_parent, old_think = parent, think_s
    parent, think_s = parent.copy(), think_s.copy()
    while len(orphans):
        gone = parent[orphans]
        parent[orphans] = old_parent[gone]
        think_s[orphans] += old_think[gone]
        above = parent[orphans]
        orphans = orphans[(above >= 0) & ~keep[above]]
    think_s[parent < 0] = 0.0
    return parent, think_s


def take_rows(
    columns: Mapping[str, npt.NDArray[Any]], blocks: PromptBlocks | None, rows: IntColumn
) -> tuple[ColumnMap, PromptBlocks | None]:
    """The rows `rows` (no row twice) in that order; a parent must not come after its child."""
    total = len(columns["prompt_tokens"])
    columns = dict(columns)
    if "parent" in columns:
        keep = np.zeros(total, dtype=np.bool_)
        keep[rows] = True
        parent, columns["think_s"] = relink(columns["parent"], columns["think_s"], keep)
        place = np.full(total + 1, -1, dtype=np.int64)  # the last entry serves parent -1
        place[rows] = np.arange(len(rows))
        columns["parent"] = place[parent]
    taken = {name: column[rows] for name, column in columns.items()}
    return taken, None if blocks is None else take_blocks(blocks, rows)


def take_blocks(
    blocks: PromptBlocks, rows: IntColumn, lengths: IntColumn | None = None
) -> PromptBlocks:
    """The chains of `rows` in that order, each cut to `lengths` blocks if these are given."""
    starts = blocks.offsets[rows]
    if lengths is None:
        lengths = blocks.offsets[rows + 1] - starts
    offsets = np.zeros(len(rows) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    picked = np.repeat(starts - offsets[:-1], lengths) + np.arange(offsets[-1])
    return PromptBlocks(blocks.block_size, offsets, blocks.ids[picked])


def roots(parent: IntColumn) -> IntColumn:
    """For each row the first ancestor that has no parent (itself for a root)."""
    root = np.where(parent >= 0, parent, np.arange(len(parent)))
    while not np.array_equal(root, root[root]):
        root = root[root]
    return root
