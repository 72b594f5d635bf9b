"""Where a context's tokens lie in the cache: the one place where paged and contiguous differ."""

import triton
import triton.language as tl


@triton.jit
def sequence_blocks(blocks, sequence, table_sequence, PAGED: tl.constexpr):
    """A sequence's row of the block table, or, contiguous, its first block."""
    if PAGED:
        return blocks + sequence.to(tl.int64) * table_sequence
    else:
        return tl.load(blocks + sequence)


@triton.jit
def token_blocks(own_blocks, start, tokens, end, PAGED: tl.constexpr, BLOCK_SIZE: tl.constexpr):
    """The blocks of a tile's tokens, `start` + `tokens`; those at `end` and beyond are not read.

    A tile starts at a multiple of its length, and lengths of tiles and blocks are powers of two:
    so what `tokens` adds to `start`'s block and place does not change from tile to tile.
    """
    index = start // BLOCK_SIZE + tokens // BLOCK_SIZE
    if PAGED:
        return tl.load(own_blocks + index, mask=start + tokens < end, other=0)
    else:
        return own_blocks + index


@triton.jit
def token_offsets(
    block_ids,
    start,
    tokens,
    cache_block,
    cache_token,
    BLOCK_SIZE: tl.constexpr,
    TILE: tl.constexpr,
    UNIT: tl.constexpr,  # elements in 16 bytes, of which all strides are multiples
):
    """Elements from a head's first key to a tile's, int64: caches pass 2^31 elements.

    Counted in units of 16 bytes, which reach 32 GiB in an int32 and cost a quarter of the work.
    """
    places = (tokens % BLOCK_SIZE) * (cache_token // UNIT)
    if BLOCK_SIZE > TILE:
        places += (start % BLOCK_SIZE) * (cache_token // UNIT)
    units = block_ids * (cache_block // UNIT) + places
    return units.to(tl.int64) * UNIT
