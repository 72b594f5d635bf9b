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
def token_blocks(own_blocks, tokens, end, PAGED: tl.constexpr, BLOCK_SIZE: tl.constexpr):
    """The blocks of `tokens` (a vector) of a sequence; those at `end` and beyond are not read."""
    if PAGED:
        return tl.load(own_blocks + tokens // BLOCK_SIZE, mask=tokens < end, other=0)
    else:
        return own_blocks + tokens // BLOCK_SIZE


@triton.jit
def token_offsets(block_ids, tokens, cache_block, cache_token, BLOCK_SIZE: tl.constexpr):
    """Elements from a head's first key to those of `tokens`, int64: caches pass 2^31 elements."""
    return block_ids.to(tl.int64) * cache_block + (tokens % BLOCK_SIZE) * cache_token
