"""`DecodePlan`: which program reads which part of which context, decided on the device.

A context is cut into splits of one chunk of tokens each, the last one shorter. The chunk grows with
the batch's tokens, so that a batch makes about as many programs as the device runs at once and
never more than the launch grid holds; longest splits come first.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from schedsim.kernels.checks import check_heads, check_tensor, require

PROGRAMS_PER_PROCESSOR = 2
"""Decode programs that one multiprocessor runs at a time; what the shared memory of a program's
tiles allows."""

MIN_CHUNK_TILES = 4
"""Below this a split costs more to combine than it saves."""

RECORD = 8
"""int32 fields of a split's record: sequence, first token, end, splits of the sequence, place of
its first split among the partial results, own place there; the rest pads it to 32 bytes."""

SEQUENCES_PER_PROGRAM: tl.constexpr = tl.constexpr(32)
SEQUENCES_AT_ONCE: tl.constexpr = tl.constexpr(128)


class DecodeTiles(NamedTuple):
    """How a decode program walks its split: tokens at once, warps, loads in flight."""

    tokens: int
    warps: int
    stages: int


def decode_tiles(head_dim: int, group: int, dtype: torch.dtype) -> DecodeTiles:
    """Tiles whose keys take 16 KB: two programs of four stages share a multiprocessor.

    More than 16 rows of query heads, or float32, which is multiplied without matrix instructions,
    want more warps for their registers.
    """
    row_bytes = triton.next_power_of_2(head_dim) * dtype.itemsize
    rows = decode_rows(group)
    warps = 8 if dtype == torch.float32 or rows > 64 else 4 if rows > 16 else 2
    return DecodeTiles(min(128, max(16, 16384 // row_bytes)), warps, stages=4)


def decode_rows(group: int) -> int:
    """The query heads of a KV head, padded to what a matrix instruction takes."""
    return max(16, int(triton.next_power_of_2(group)))


@triton.jit
def decode_plan_kernel(
    # tensors
    context_lengths,  # [num_sequences] int32
    records,  # [capacity, RECORD] int32
    # sizes
    num_sequences,
    capacity,
    target_splits,
    # constants
    TILE: tl.constexpr,
    MIN_TILES: tl.constexpr,
    FIELDS: tl.constexpr,
):
    own = tl.program_id(0) * SEQUENCES_PER_PROGRAM + tl.arange(0, SEQUENCES_PER_PROGRAM)
    length = tl.load(context_lengths + own, mask=own < num_sequences, other=0)

    # The chunk: whole tiles, as many as give the batch `target_splits` splits.
    num_tiles = 0
    for start in range(0, num_sequences, SEQUENCES_AT_ONCE):
        other = start + tl.arange(0, SEQUENCES_AT_ONCE)
        lengths = tl.load(context_lengths + other, mask=other < num_sequences, other=0)
        num_tiles += tl.sum((lengths + TILE - 1) // TILE)
    chunk = tl.maximum(tl.cdiv(num_tiles, target_splits), MIN_TILES) * TILE

    # A sequence has `full` splits of a chunk and one of `rest` tokens. An empty one, which pads a
    # batch, has a split of 0 tokens, so that its output is written.
    full = length // chunk
    rest = length % chunk
    has_rest = (own < num_sequences) & ((rest > 0) | (length == 0))

    # Places: all full splits in the order of the sequences, then the rests, longest first.
    total_full = 0
    total_rests = 0
    full_before = tl.zeros_like(own)
    splits_before = tl.zeros_like(own)
    rests_before = tl.zeros_like(own)
    for start in range(0, num_sequences, SEQUENCES_AT_ONCE):
        other = start + tl.arange(0, SEQUENCES_AT_ONCE)
        lengths = tl.load(context_lengths + other, mask=other < num_sequences, other=0)
        fulls = lengths // chunk
        rests = lengths % chunk
        have = ((other < num_sequences) & ((rests > 0) | (lengths == 0))).to(tl.int32)
        earlier = (other[None, :] < own[:, None]).to(tl.int32)
        longer = (rests[None, :] > rest[:, None]).to(tl.int32)
        equal = (rests[None, :] == rest[:, None]).to(tl.int32)
        total_full += tl.sum(fulls)
        total_rests += tl.sum(have)
        full_before += tl.sum(earlier * fulls[None, :], axis=1)
        splits_before += tl.sum(earlier * (fulls + have)[None, :], axis=1)
        rests_before += tl.sum(have[None, :] * (longer + equal * earlier), axis=1)
    splits = full + has_rest.to(tl.int32)

    for index in range(0, tl.max(splits)):
        is_rest = index == full
        place = tl.where(is_rest, total_full + rests_before, full_before + index)
        record = records + place * FIELDS
        mine = (own < num_sequences) & (index < splits)
        first = index * chunk
        tl.store(record, own, mask=mine)
        tl.store(record + 1, first, mask=mine)
        tl.store(record + 2, tl.minimum(first + chunk, length), mask=mine)
        tl.store(record + 3, splits, mask=mine)
        tl.store(record + 4, splits_before, mask=mine)
        tl.store(record + 5, splits_before + index, mask=mine)

    # What is left of the grid does nothing.
    step = tl.num_programs(0) * SEQUENCES_AT_ONCE
    begin = total_full + total_rests + tl.program_id(0) * SEQUENCES_AT_ONCE
    for start in range(begin, capacity, step):
        place = start + tl.arange(0, SEQUENCES_AT_ONCE)
        tl.store(records + place * FIELDS, -1, mask=place < capacity)


class DecodePlan:
    """The splits of a decode batch and the room for their partial results, at fixed addresses.

    Made once for batches of up to `max_sequences`; `build` fills it once an iteration, then every
    layer's decode reads it. Both may be captured in a CUDA graph. One stream at a time may use it.
    """

    def __init__(
        self,
        max_sequences: int,
        heads: int,
        kv_heads: int,
        head_dim: int,
        *,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        """Allocate for the largest batch; nothing grows later."""
        check_heads(heads, kv_heads, head_dim)
        require(max_sequences > 0, f"max_sequences is {max_sequences}; at least 1 is expected")
        self.device = torch.device(device)
        self.max_sequences = max_sequences
        self.heads = heads
        self.kv_heads = kv_heads
        self.head_dim = head_dim
        self.dtype = dtype
        self.tiles = decode_tiles(head_dim, heads // kv_heads, dtype)
        programs = PROGRAMS_PER_PROCESSOR * num_processors(self.device)
        self.target_splits = max(1, programs // kv_heads)
        self.capacity = max_sequences + self.target_splits
        self.num_sequences = 0  # until `build`, which also keeps the lengths
        self.is_read = False  # by a decode since `build`
        self.context_lengths: Tensor

        def empty(*shape: int, dtype: torch.dtype) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=self.device)

        self.records = empty(self.capacity, RECORD, dtype=torch.int32)
        self.partial_output = empty(self.capacity, heads, head_dim, dtype=torch.float32)
        self.partial_lse = empty(self.capacity, heads, dtype=torch.float32)
        # How many splits of a (sequence, KV head) are done; the last one sets it back to zero.
        self.arrivals = torch.zeros(max_sequences * kv_heads, dtype=torch.int32, device=self.device)

    def build(self, context_lengths: Sequence[int] | Tensor) -> None:
        """Plan for at most `max_sequences` contexts, the new tokens included.

        A tensor [sequences] int32 on the device, which is what a CUDA graph reads, is taken as it
        is: a length of 0 pads the batch, and that sequence's output is zeros.

        Raises:
            KernelError: too many or no sequences, a wrong type or device; a number below 1.
        """
        if not isinstance(context_lengths, Tensor):
            wrong = [index for index, length in enumerate(context_lengths) if length < 1]
            require(not wrong, f"sequence {wrong[:1]} has a context without tokens")
            host = torch.tensor(context_lengths, dtype=torch.int32)
            if self.device.type == "cuda":
                host = host.pin_memory()  # or the copy would wait for the device
            context_lengths = host.to(self.device, non_blocking=True)
        check_tensor(
            "context_lengths", context_lengths, shape=(None,), dtype=torch.int32,
            device=self.records.device, contiguous=True,
        )  # fmt: skip
        num_sequences = len(context_lengths)
        require(
            0 < num_sequences <= self.max_sequences,
            f"{num_sequences} sequences; the plan was made for 1 to {self.max_sequences}",
        )
        self.context_lengths, self.num_sequences = context_lengths, num_sequences
        self.is_read = False
        decode_plan_kernel[(triton.cdiv(self.num_sequences, SEQUENCES_PER_PROGRAM.value),)](
            context_lengths,
            self.records,
            self.num_sequences,
            self.capacity,
            self.target_splits,
            TILE=self.tiles.tokens,
            MIN_TILES=MIN_CHUNK_TILES,
            FIELDS=RECORD,
        )


def num_processors(device: torch.device) -> int:
    """Multiprocessors of the device; 1 for the interpreter's."""
    if device.type != "cuda":
        return 1
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
