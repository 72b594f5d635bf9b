"""`PrefillPlan`: the query tiles of a batch of chunks, the longest first, made on the host."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
from torch import Tensor

from schedsim.kernels.checks import check_heads, require
from schedsim.kernels.decode_plan import num_processors

RECORD = 4
"""int32 fields of a tile's record: sequence, first row of the query, position of that row in its
sequence, rows."""

STAGES = 3
"""Context tiles in shared memory: one in use, two on their way."""

RESERVED_MEMORY = 2048
"""Bytes of shared memory that the compiler takes beside the tiles."""


class PrefillTiles(NamedTuple):
    """How a prefill program walks its context: tokens at once, warps, tiles in shared memory."""

    tokens: int
    warps: int
    stages: int


def prefill_rows(head_dim: int, group: int, dtype: torch.dtype) -> int:
    """Rows of query of a program, as many as registers hold: the output's are the most of them.

    float32 is multiplied without matrix instructions, its operands in registers too.
    """
    rows = 32 if dtype == torch.float32 else 128 if head_dim <= 128 else 64
    return max(rows, int(triton.next_power_of_2(group)))


def prefill_tiles(
    head_dim: int, rows: int, dtype: torch.dtype, shared_memory: int, copied_block: int | None
) -> PrefillTiles:
    """The longest tiles, up to 128 tokens, of which shared memory (bytes) holds three stages.

    The copy engine's tiles lie within a block, of `copied_block` tokens. A head dimension that is
    padded wants registers for its masks.
    """
    dim = triton.next_power_of_2(head_dim)
    tokens = min(128, copied_block or 128) if dim == head_dim else 32
    if dtype == torch.float32:
        tokens = 16
    room = shared_memory - RESERVED_MEMORY - rows * dim * dtype.itemsize
    while tokens > 16 and STAGES * 2 * tokens * dim * dtype.itemsize > room:
        tokens //= 2
    return PrefillTiles(tokens, warps=8, stages=STAGES)


def attended_at_once(
    heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype, device: torch.device
) -> int:
    """Of how many chunk tokens a GPU runs the programs side by side: one program a multiprocessor,
    whose shared memory it fills, and one a KV head and tile of query rows. 0 on a CPU."""
    if device.type != "cuda":
        return 0
    group = heads // kv_heads
    tokens = prefill_rows(head_dim, group, dtype) // group
    return max(tokens, num_processors(device) * tokens // kv_heads)


class PrefillPlan:
    """Which program computes which rows; made once an iteration, read by every layer.

    `context_lengths` include the chunk: the chunk is the last tokens of its context.
    """

    def __init__(
        self,
        query_lengths: Sequence[int],
        context_lengths: Sequence[int],
        heads: int,
        kv_heads: int,
        head_dim: int,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        """Plan on the host and copy to `device` without waiting; O(tiles).

        Raises:
            KernelError: a length below 1, or a chunk longer than its context; names the sequence.
        """
        check_heads(heads, kv_heads, head_dim)
        _check_lengths(query_lengths, context_lengths)
        self.num_tokens = sum(query_lengths)
        self.num_sequences = len(query_lengths)
        self.context_lengths = tuple(context_lengths)
        self.made_for = (heads, kv_heads, head_dim, dtype)
        group = heads // kv_heads
        self.rows = prefill_rows(head_dim, group, dtype)
        self.tokens_per_tile = self.rows // group
        records = _records(query_lengths, context_lengths, self.tokens_per_tile)
        if torch.device(device).type == "cuda":
            records = records.pin_memory()  # or the copy would wait for the device
        self.records: Tensor = records.to(device, non_blocking=True)

    @classmethod
    def with_room(
        cls,
        num_tokens: int,
        num_sequences: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> "PrefillPlan":
        """A plan at a fixed address, for a CUDA graph: `fill` says what it is before each replay.

        A query of `num_tokens` rows, of which chunks of up to `num_sequences` sequences have some.
        """
        plan = cls(
            [num_tokens], [num_tokens], heads, kv_heads, head_dim, dtype=dtype, device=device
        )
        tiles = num_tokens // plan.tokens_per_tile + num_sequences
        plan.num_sequences = num_sequences
        plan.records = torch.zeros(tiles, RECORD, dtype=torch.int32, device=device)
        return plan

    def fill(
        self, query_lengths: Sequence[int], context_lengths: Sequence[int], *, first_row: int
    ) -> None:
        """Plan chunks that begin at row `first_row` of the query, in the room there is; no wait.

        Rows of no chunk are not written. What is left of the room does nothing.

        Raises:
            KernelError: more chunks or tokens than there is room for, or as `PrefillPlan`.
        """
        _check_lengths(query_lengths, context_lengths)
        total = first_row + sum(query_lengths)
        require(
            len(query_lengths) <= self.num_sequences and total <= self.num_tokens,
            f"{len(query_lengths)} chunks up to row {total}; there is room for "
            f"{self.num_sequences} and {self.num_tokens}",
        )
        records = _records(query_lengths, context_lengths, self.tokens_per_tile)
        records[:, 1] += first_row
        host = torch.zeros_like(self.records, device="cpu")
        host[: len(records)] = records
        if self.records.is_cuda:
            host = host.pin_memory()  # or the copy would wait for the device
        self.records.copy_(host, non_blocking=True)


def _check_lengths(query_lengths: Sequence[int], context_lengths: Sequence[int]) -> None:
    require(
        len(query_lengths) == len(context_lengths) > 0,
        f"{len(query_lengths)} query lengths and {len(context_lengths)} context lengths",
    )
    for sequence, (rows, context) in enumerate(zip(query_lengths, context_lengths, strict=True)):
        require(
            1 <= rows <= context,
            f"sequence {sequence} has {rows} query tokens in a context of {context}; "
            "at least 1 and at most the context are expected",
        )


def _records(
    query_lengths: Sequence[int], context_lengths: Sequence[int], tokens_per_tile: int
) -> Tensor:
    """[tiles, RECORD] int32, those that read the most context first."""
    queries = torch.tensor(query_lengths)
    contexts = torch.tensor(context_lengths)
    num_tiles = (queries + tokens_per_tile - 1) // tokens_per_tile
    sequence = torch.repeat_interleave(num_tiles)
    first_tile = (num_tiles.cumsum(0) - num_tiles)[sequence]
    offset = (torch.arange(len(sequence)) - first_tile) * tokens_per_tile
    first_row = (queries.cumsum(0) - queries)[sequence] + offset
    position = (contexts - queries)[sequence] + offset
    rows = torch.minimum(queries[sequence] - offset, torch.tensor(tokens_per_tile))
    order = torch.argsort(position + rows, descending=True, stable=True)
    return torch.stack((sequence, first_row, position, rows), dim=1)[order].to(torch.int32)
