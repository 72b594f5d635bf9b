"""What a program does before the kernel before its own has ended: programmatic dependent launch."""

import torch
import triton
import triton.language as tl

from schedsim.kernels.addresses import token_offsets


def starts_early(device: torch.device) -> bool:
    """Whether a kernel's programs may take their places while the one before still ends."""
    return device.type == "cuda" and tuple(torch.cuda.get_device_capability(device)) >= (9, 0)


@triton.jit
def ask_for_first_tile(
    keys_head,
    values_head,
    blocks,
    sequence,
    first,
    end,
    cache_block,
    cache_token,
    table_sequence,
    PAGED: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    DIM: tl.constexpr,
    TILE: tl.constexpr,
    UNIT: tl.constexpr,
):
    """Have a split's block ids and its first tile brought to the L2 cache.

    The kernel before may still write the table and the cache. What is read here decides nothing
    but what the cache holds, and block ids not through this multiprocessor's own cache, which
    would keep them.
    """
    tokens = tl.arange(0, TILE)
    index = first // BLOCK_SIZE + tokens // BLOCK_SIZE
    if PAGED:
        table = blocks + sequence.to(tl.int64) * table_sequence
        _prefetch(table + first // BLOCK_SIZE + tokens * 8)  # 32 bytes each
        ids = tl.load(table + index, mask=first + tokens < end, other=0, cache_modifier=".cg")
    else:
        ids = tl.load(blocks + sequence, cache_modifier=".cg") + index
    offsets = token_offsets(ids, first, tokens, cache_block, cache_token, BLOCK_SIZE, TILE, UNIT)
    LINE: tl.constexpr = 8 * UNIT  # 128 bytes
    lines = offsets[:, None] + tl.arange(0, DIM // LINE)[None, :] * LINE
    _prefetch(keys_head + lines)
    _prefetch(values_head + lines)


@triton.jit
def _prefetch(pointers):
    """Ask for the lines at `pointers` in the L2 cache; an address of nothing does no harm."""
    tl.inline_asm_elementwise(
        "prefetch.global.L2 [$1]; mov.u32 $0, 0;",
        "=r,l",
        [pointers.to(tl.int64)],
        dtype=tl.int32,
        is_pure=False,
        pack=1,
    )
