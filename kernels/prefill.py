"""Causal attention of query chunks over a KV cache that holds their contexts, chunks included.

A program has the query heads of one KV head for some tokens of a chunk, as the rows of one tile.
Paged and contiguous are one kernel. Blocks of a context tile's size or more are fetched whole by
the chip's tensor copy engine where it has one, others token by token.
"""

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from schedsim.kernels.addresses import sequence_blocks, token_blocks, token_offsets
from schedsim.kernels.checks import (
    check_block_size,
    check_blocks_in_range,
    check_caches,
    check_query,
    check_tensor,
    require,
)
from schedsim.kernels.decode import LOG2_E
from schedsim.kernels.prefill_plan import RECORD, PrefillPlan, prefill_tiles


@triton.jit
def prefill_kernel(
    # tensors
    output,  # [tokens, heads, HEAD_DIM]
    query,  # [tokens, heads, HEAD_DIM]
    key_cache,  # [blocks, BLOCK_SIZE, kv_heads, HEAD_DIM]
    value_cache,  # the same form and strides
    key_matrix,  # COPY_ENGINE: descriptors of the caches as matrices
    value_matrix,
    blocks,  # PAGED: table [sequences, width] int32, else first blocks [sequences] int32
    records,  # [tiles, FIELDS] int32: the plan
    # sizes
    scale_log2,  # softmax scale · log2(e)
    # strides
    output_token,
    output_head,
    query_token,
    query_head,
    cache_block,
    cache_token,
    cache_head,
    table_sequence,
    # constants
    PAGED: tl.constexpr,
    COPY_ENGINE: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    GROUP: tl.constexpr,  # query heads of a KV head
    ROWS: tl.constexpr,  # tokens × GROUP, padded
    HEAD_DIM: tl.constexpr,
    DIM: tl.constexpr,  # HEAD_DIM padded to a power of two
    TILE: tl.constexpr,  # context tokens at once
    FIELDS: tl.constexpr,
    PRECISION: tl.constexpr,
):
    head = tl.program_id(0)
    record = records + tl.program_id(1) * FIELDS
    sequence = tl.load(record)
    first_row = tl.load(record + 1)
    position = tl.load(record + 2)
    num_tokens = tl.load(record + 3)

    # ---- the tile's queries: row r is head r % GROUP of token r // GROUP
    rows = tl.arange(0, ROWS)
    dims = tl.arange(0, DIM)
    token = rows // GROUP
    in_tile = (token[:, None] < num_tokens) & (dims[None, :] < HEAD_DIM)
    query_rows = (first_row + token).to(tl.int64) * query_token
    query_rows += (head * GROUP + rows % GROUP) * query_head
    q = tl.load(query + query_rows[:, None] + dims[None, :], mask=in_tile, other=0.0)

    # ---- whole tiles of context that every row sees, then those on the diagonal
    own_blocks = sequence_blocks(blocks, sequence, table_sequence, PAGED)
    last_seen = position + tl.minimum(token, num_tokens - 1)
    end = position + num_tokens
    all_see = (position + 1) // TILE * TILE
    maximum = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    accumulator = tl.zeros([ROWS, DIM], tl.float32)
    accumulator, total, maximum = _attend(
        accumulator, total, maximum, q, key_cache, value_cache, key_matrix, value_matrix,
        own_blocks, head, last_seen, 0, all_see, end, scale_log2,
        cache_block, cache_token, cache_head,
        False, PAGED, COPY_ENGINE, BLOCK_SIZE, HEAD_DIM, DIM, TILE, PRECISION,
    )  # fmt: skip
    # Here the last block may be half empty, and what lies there is not to be read.
    accumulator, total, maximum = _attend(
        accumulator, total, maximum, q, key_cache, value_cache, key_matrix, value_matrix,
        own_blocks, head, last_seen, all_see, end, end, scale_log2,
        cache_block, cache_token, cache_head,
        True, PAGED, False, BLOCK_SIZE, HEAD_DIM, DIM, TILE, PRECISION,
    )  # fmt: skip

    # ---- out
    accumulator = accumulator / total[:, None]
    output_rows = (first_row + token).to(tl.int64) * output_token
    output_rows += (head * GROUP + rows % GROUP) * output_head
    tl.store(
        output + output_rows[:, None] + dims[None, :],
        accumulator.to(output.dtype.element_ty),
        mask=in_tile,
    )


@triton.jit
def _attend(
    accumulator,
    total,
    maximum,
    q,
    key_cache,
    value_cache,
    key_matrix,
    value_matrix,
    own_blocks,
    head,
    last_seen,
    begin,
    stop,
    end,
    scale_log2,
    cache_block,
    cache_token,
    cache_head,
    DIAGONAL: tl.constexpr,
    PAGED: tl.constexpr,
    COPY_ENGINE: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    DIM: tl.constexpr,
    TILE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """The context tiles from `begin` to `stop`; on the diagonal rows see up to `last_seen`."""
    tokens = tl.arange(0, TILE)
    dims = tl.arange(0, DIM)
    UNIT: tl.constexpr = 128 // q.dtype.primitive_bitwidth
    in_head = (dims < HEAD_DIM)[None, :] & (tokens >= 0)[:, None]
    if COPY_ENGINE:
        block = _block(own_blocks, begin, stop, PAGED, BLOCK_SIZE)
    else:
        tile_blocks = token_blocks(own_blocks, begin, tokens, end, PAGED, BLOCK_SIZE)
    for start in tl.range(begin, stop, TILE):
        # The next tile's block ids are on their way while this tile is worked on.
        if COPY_ENGINE:
            # A tile lies within a block; rows of the matrix are tokens, columns heads.
            row = block * (cache_block // cache_token) + start % BLOCK_SIZE
            k = key_matrix.load([row, head * HEAD_DIM])
            v = value_matrix.load([row, head * HEAD_DIM])
            block = _block(own_blocks, start + TILE, stop, PAGED, BLOCK_SIZE)
        else:
            offsets = token_offsets(
                tile_blocks, start, tokens, cache_block, cache_token, BLOCK_SIZE, TILE, UNIT
            )
            elements = (offsets + head * cache_head)[:, None] + dims[None, :]
            mask = in_head & (start + tokens < end)[:, None] if DIAGONAL else in_head
            k = tl.load(key_cache + elements, mask=mask, other=0.0)
            v = tl.load(value_cache + elements, mask=mask, other=0.0)
            tile_blocks = token_blocks(own_blocks, start + TILE, tokens, end, PAGED, BLOCK_SIZE)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION)
        if DIAGONAL:
            sees = (start + tokens)[None, :] <= last_seen[:, None]
            scores = tl.where(sees, scores, float("-inf"))
        new_maximum = tl.maximum(maximum, tl.max(scores, axis=1) * scale_log2)
        weights = tl.exp2(scores * scale_log2 - new_maximum[:, None])
        decay = tl.exp2(maximum - new_maximum)
        total = total * decay + tl.sum(weights, axis=1)
        accumulator = accumulator * decay[:, None]
        accumulator = tl.dot(weights.to(v.dtype), v, accumulator, input_precision=PRECISION)
        maximum = new_maximum
    return accumulator, total, maximum


@triton.jit
def _block(own_blocks, token, stop, PAGED: tl.constexpr, BLOCK_SIZE: tl.constexpr):
    """The block of one token of a sequence; at `stop` and beyond it is not read."""
    if PAGED:
        return tl.load(own_blocks + token // BLOCK_SIZE, mask=token < stop, other=0)
    else:
        return own_blocks + token // BLOCK_SIZE


def paged_prefill(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_table: Tensor,
    plan: PrefillPlan,
    *,
    scale: float,
    output: Tensor | None = None,
    debug: bool = False,
) -> Tensor:
    """Causal attention of chunks of queries over their blocks, [tokens, heads, head_dim].

    `query` [tokens, heads, head_dim] holds the chunks one after the other, in the plan's order; a
    chunk of one token is a decode. The caches [blocks, block_size, kv_heads, head_dim] may be
    views of one tensor; `block_table` [sequences, width] int32 names each sequence's blocks.
    Writes `output` if it is given. `debug` has every block id checked first, which waits for the
    device.

    Raises:
        KernelError: a wrong type, shape, stride or device; under `debug` a block id out of range.
    """
    check_query(query)
    check_block_size(key_cache.shape[1])
    check_tensor(
        "block_table", block_table, shape=(plan.num_sequences, None), dtype=torch.int32,
        device=query.device, contiguous=True,
    )  # fmt: skip
    if debug:
        lengths = torch.tensor(plan.context_lengths)
        check_blocks_in_range(block_table, lengths, *key_cache.shape[:2])
    return _prefill(query, key_cache, value_cache, block_table, plan, scale, output, paged=True)


def contiguous_prefill(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    first_blocks: Tensor,
    plan: PrefillPlan,
    *,
    scale: float,
    output: Tensor | None = None,
) -> Tensor:
    """`paged_prefill` without the table: sequence s lies in consecutive blocks from
    `first_blocks[s]` (int32) on. Keys [tokens, …] are `keys.view(-1, block_size, …)`.
    """
    check_query(query)
    check_tensor(
        "first_blocks", first_blocks, shape=(plan.num_sequences,), dtype=torch.int32,
        device=query.device, contiguous=True,
    )  # fmt: skip
    return _prefill(query, key_cache, value_cache, first_blocks, plan, scale, output, paged=False)


def _prefill(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    blocks: Tensor,
    plan: PrefillPlan,
    scale: float,
    output: Tensor | None,
    *,
    paged: bool,
) -> Tensor:
    check_caches(query, key_cache, value_cache)
    tokens, heads, head_dim = query.shape
    kv_heads = key_cache.shape[2]
    this = (heads, kv_heads, head_dim, query.dtype)
    require(
        plan.made_for == this,
        f"the plan was made for (heads, kv_heads, head_dim, type) {plan.made_for}; this is {this}",
    )
    require(
        plan.num_tokens == tokens,
        f"the plan's chunks have {plan.num_tokens} tokens; the query has {tokens}",
    )
    if output is None:
        output = torch.empty_like(query, memory_format=torch.contiguous_format)
    check_tensor("output", output, shape=tuple(query.shape), dtype=query.dtype, device=query.device)
    block_size = key_cache.shape[1]
    copied = block_size >= 64 and uses_copy_engine(key_cache)
    tiles = prefill_tiles(
        head_dim,
        plan.rows,
        query.dtype,
        shared_memory(query.device),
        block_size if copied else None,
    )
    matrices: tuple[TensorDescriptor | None, ...] = (None, None)
    if copied:
        matrices = tuple(_matrix(cache, tiles.tokens) for cache in (key_cache, value_cache))
    prefill_kernel[(kv_heads, len(plan.records))](
        output, query, key_cache, value_cache, *matrices, blocks, plan.records, scale * LOG2_E,
        output.stride(0), output.stride(1), query.stride(0), query.stride(1),
        *key_cache.stride()[:3], blocks.stride(0),
        PAGED=paged,
        COPY_ENGINE=copied,
        BLOCK_SIZE=block_size,
        GROUP=heads // kv_heads,
        ROWS=plan.rows,
        HEAD_DIM=head_dim,
        DIM=triton.next_power_of_2(head_dim),
        TILE=tiles.tokens,
        FIELDS=RECORD,
        PRECISION="ieee" if query.dtype == torch.float32 else "tf32",
        num_warps=tiles.warps,
        num_stages=tiles.stages,
    )  # fmt: skip
    return output


def shared_memory(device: torch.device) -> int:
    """Bytes of shared memory that a program may have; the interpreter gets an A100's."""
    if device.type != "cuda":
        return 163 * 1024
    properties: Any = torch.cuda.get_device_properties(device)  # torch's stubs lack the field
    return int(properties.shared_memory_per_block_optin)


def uses_copy_engine(cache: Tensor) -> bool:
    """Whether the copy engine can fetch the cache's tokens: Hopper or later, heads side by side in
    a token, and a 16-bit type with a head dimension that is a power of two."""
    head_dim = cache.shape[3]
    block_stride, token_stride, head_stride = cache.stride()[:3]
    return bool(
        cache.is_cuda
        and tuple(torch.cuda.get_device_capability(cache.device)) >= (9, 0)
        and cache.element_size() == 2
        and head_dim == triton.next_power_of_2(head_dim) == head_stride
        and block_stride % token_stride == 0
    )


def _matrix(cache: Tensor, tokens: int) -> TensorDescriptor:
    """A head's tile of tokens in the cache seen as a matrix: a row a token, heads side by side."""
    block_size, kv_heads, head_dim = cache.shape[1:]
    block_stride, token_stride = cache.stride()[:2]
    rows = (len(cache) - 1) * (block_stride // token_stride) + block_size
    return TensorDescriptor(
        cache, [rows, kv_heads * head_dim], [token_stride, 1], [tokens, head_dim]
    )
