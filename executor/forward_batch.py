"""`ForwardBatch`: the tensors of one forward pass, from plain lists of what each sequence runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from schedsim.executor.attention import AttentionMetadata
from schedsim.executor.device import to_device


class Segment(NamedTuple):
    """One sequence's part of a batch: a prefill chunk, or the newest token of a decode.

    `token_ids` go to positions `context`, `context` + 1, …; the `context` tokens before them are
    in the cache. `block_table` names the sequence's blocks in order and reaches at least to the
    last new token. `samples` says that the logits after the last token are wanted. With `writes`
    False the cache holds the new tokens' keys and values already: what is computed for them again
    goes to the null block.
    """

    token_ids: Sequence[int] | np.ndarray
    context: int
    block_table: Sequence[int]
    samples: bool = True
    writes: bool = True


@dataclass(frozen=True, slots=True)
class ForwardBatch:
    """T new tokens of several sequences, one sequence after the other; all tensors are int64.

    `token_ids`, `positions`, `slot_mapping` are [T]: the token, its place in its sequence and its
    place in the cache; `context_lengths` [T] counts the tokens of its sequence, this batch's
    included. `sampled_rows` [S] are the rows whose logits are wanted, ascending.
    """

    token_ids: Tensor
    positions: Tensor
    context_lengths: Tensor
    slot_mapping: Tensor
    sampled_rows: Tensor
    attention: AttentionMetadata


def build_batch(
    segments: Sequence[Segment],
    block_size: int,
    *,
    device: torch.device | str = "cpu",
    contiguous: bool = False,
) -> ForwardBatch:
    """The tensors for `segments`, which must not be empty; O(tokens + blocks).

    `contiguous` reads the cache by range: every block table must then name consecutive blocks.
    """
    query_lengths = np.array([len(segment.token_ids) for segment in segments])
    assert len(query_lengths) > 0, "a batch without sequences has no forward pass"
    assert query_lengths.min() > 0, "a sequence of the batch runs no token"
    contexts = np.array([segment.context for segment in segments])
    ends = contexts + query_lengths
    positions = np.concatenate([np.arange(*span) for span in zip(contexts, ends, strict=True)])
    tables = _padded_tables([segment.block_table for segment in segments], ends, block_size)
    owners = np.repeat(np.arange(len(segments)), query_lengths)
    slots = tables[owners, positions // block_size] * block_size + positions % block_size
    slots[~np.array([segment.writes for segment in segments])[owners]] = 0
    samples = np.array([segment.samples for segment in segments])
    token_ids = np.concatenate([np.asarray(segment.token_ids) for segment in segments])

    def tensor(values: np.ndarray) -> Tensor:
        return to_device(values, device, torch.int64)

    metadata = AttentionMetadata(
        query_lengths=tuple(query_lengths.tolist()),
        context_lengths=tuple(ends.tolist()),
        block_tables=None if contiguous else tensor(tables),
        first_blocks=_first_blocks(tables) if contiguous else None,
    )
    return ForwardBatch(
        token_ids=tensor(token_ids),
        positions=tensor(positions),
        context_lengths=tensor(ends[owners]),
        slot_mapping=tensor(slots),
        sampled_rows=tensor(np.cumsum(query_lengths)[samples] - 1),
        attention=metadata,
    )


def _padded_tables(
    tables: Sequence[Sequence[int]], context_lengths: np.ndarray, block_size: int
) -> np.ndarray:
    """The blocks that hold each context, [sequences, width], padded with the null block."""
    num_blocks = -(-context_lengths // block_size)
    padded = np.zeros((len(tables), int(num_blocks.max())), dtype=np.int64)
    for row, (table, count) in enumerate(zip(tables, num_blocks, strict=True)):
        assert len(table) >= count, f"{count} blocks are needed, the table has {len(table)}"
        padded[row, :count] = table[:count]
    assert (padded > 0).sum() == num_blocks.sum(), "a block table names the null block"
    return padded


def _first_blocks(tables: np.ndarray) -> tuple[int, ...]:
    steps = np.where(tables[:, 1:] > 0, np.diff(tables, axis=1), 1)
    assert (steps == 1).all(), "a contiguous block table skips a block"
    return tuple(tables[:, 0].tolist())
