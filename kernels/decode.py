"""Decode attention over a KV cache: one query token a sequence, contexts split over programs.

Paged and contiguous are one kernel: PAGED says whether a token's block comes from a table or is
counted from the sequence's first block.
"""

import math

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from schedsim.kernels.addresses import sequence_blocks, token_blocks, token_offsets
from schedsim.kernels.checks import (
    check_block_size,
    check_blocks_in_range,
    check_caches,
    check_query,
    check_tensor,
    require,
)
from schedsim.kernels.decode_plan import DecodePlan, decode_rows
from schedsim.kernels.early import ask_for_first_tile, starts_early

LOG2_E = math.log2(math.e)


@triton.jit
def decode_kernel(
    # tensors
    output,  # [sequences, heads, HEAD_DIM]
    query,  # [sequences, heads, HEAD_DIM]
    key_cache,  # [blocks, BLOCK_SIZE, kv_heads, HEAD_DIM]
    value_cache,  # the same form and strides
    blocks,  # PAGED: table [sequences, width] int32, else first blocks [sequences] int32
    records,  # [grid, FIELDS] int32: the plan
    partial_output,  # [grid, heads, HEAD_DIM] float32
    partial_lse,  # [grid, heads] float32: log2 of the sum of the weights
    arrivals,  # [sequences · kv_heads] int32, zeros
    # sizes
    scale_log2,  # softmax scale · log2(e)
    kv_heads,
    at_once,  # programs of a KV head that run at a time
    # strides
    output_sequence,
    output_head,
    query_sequence,
    query_head,
    cache_block,
    cache_token,
    cache_head,
    table_sequence,
    # constants
    PAGED: tl.constexpr,
    BLOCK_SIZE: tl.constexpr,
    GROUP: tl.constexpr,  # query heads of a KV head
    ROWS: tl.constexpr,  # GROUP padded to what a matrix instruction takes
    HEAD_DIM: tl.constexpr,
    DIM: tl.constexpr,  # HEAD_DIM padded to a power of two
    TILE: tl.constexpr,  # tokens at once
    FIELDS: tl.constexpr,
    SPLITS_AT_ONCE: tl.constexpr,  # of a combine
    PRECISION: tl.constexpr,
    EARLY: tl.constexpr,  # may start while the kernel before is still at work
):
    head = tl.program_id(0)
    record = records + tl.program_id(1) * FIELDS
    sequence = tl.load(record)
    if sequence < 0:
        return
    first = tl.load(record + 1)
    end = tl.load(record + 2)
    num_splits = tl.load(record + 3)
    first_place = tl.load(record + 4)
    own_place = tl.load(record + 5)

    rows = tl.arange(0, ROWS)
    dims = tl.arange(0, DIM)
    tokens = tl.arange(0, TILE)
    UNIT: tl.constexpr = 128 // query.dtype.element_ty.primitive_bitwidth
    if EARLY:
        if tl.program_id(1) < at_once:  # the kernel before has long ended for later ones
            ask_for_first_tile(
                key_cache + head * cache_head,
                value_cache + head * cache_head,
                blocks,
                sequence,
                first,
                end,
                cache_block,
                cache_token,
                table_sequence,
                PAGED,
                BLOCK_SIZE,
                DIM,
                TILE,
                UNIT,
            )
        gdc_wait()  # all that the kernel before wrote is there from here on
        gdc_launch_dependents()
    in_dims = dims[None, :] < HEAD_DIM
    in_head = (rows[:, None] < GROUP) & in_dims
    query_rows = query + sequence.to(tl.int64) * query_sequence + head * GROUP * query_head
    q = tl.load(query_rows + rows[:, None] * query_head + dims[None, :], mask=in_head, other=0.0)

    # ---- the split, tile by tile: running maximum, sum and output of every row
    keys_head = key_cache + head * cache_head
    values_head = value_cache + head * cache_head
    own_blocks = sequence_blocks(blocks, sequence, table_sequence, PAGED)
    maximum = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    accumulator = tl.zeros([ROWS, DIM], tl.float32)
    for start in tl.range(first, end, TILE):
        tile_blocks = token_blocks(own_blocks, start, tokens, end, PAGED, BLOCK_SIZE)
        offsets = token_offsets(
            tile_blocks, start, tokens, cache_block, cache_token, BLOCK_SIZE, TILE, UNIT
        )
        inside = start + tokens < end
        mask = inside[:, None] if HEAD_DIM == DIM else inside[:, None] & in_dims
        k = tl.load(keys_head + offsets[:, None] + dims[None, :], mask=mask, other=0.0)
        v = tl.load(values_head + offsets[:, None] + dims[None, :], mask=mask, other=0.0)
        scores = tl.dot(q, tl.trans(k), input_precision=PRECISION) * scale_log2
        scores = tl.where(inside[None, :], scores, float("-inf"))
        new_maximum = tl.maximum(maximum, tl.max(scores, axis=1))
        weights = tl.exp2(scores - new_maximum[:, None])
        decay = tl.exp2(maximum - new_maximum)
        total = total * decay + tl.sum(weights, axis=1)
        accumulator = accumulator * decay[:, None]
        accumulator = tl.dot(weights.to(v.dtype), v, accumulator, input_precision=PRECISION)
        maximum = new_maximum
    accumulator = accumulator / tl.where(total > 0, total, 1.0)[:, None]

    # ---- one split: this is the output; several: keep it, the last one to arrive combines
    output_rows = output + sequence.to(tl.int64) * output_sequence + head * GROUP * output_head
    if num_splits == 1:
        tl.store(
            output_rows + rows[:, None] * output_head + dims[None, :],
            accumulator.to(output.dtype.element_ty),
            mask=in_head,
        )
    else:
        heads = kv_heads * GROUP
        place = own_place.to(tl.int64) * heads + head * GROUP
        partial_rows = partial_output + (place + rows[:, None]) * HEAD_DIM
        tl.store(partial_rows + dims[None, :], accumulator, mask=in_head)
        tl.store(partial_lse + place + rows, maximum + tl.log2(total), mask=rows < GROUP)
        tl.debug_barrier()  # every thread's part is written before the arrival is counted
        arrival = arrivals + sequence * kv_heads + head
        if tl.atomic_add(arrival, 1, sem="acq_rel") == num_splits - 1:
            tl.store(arrival, 0)
            _combine(
                output_rows,
                partial_output,
                partial_lse,
                first_place,
                num_splits,
                head,
                heads,
                output_head,
                GROUP,
                HEAD_DIM,
                DIM,
                SPLITS_AT_ONCE,
            )


@triton.jit
def _combine(
    output_rows,
    partial_output,
    partial_lse,
    first_place,
    num_splits,
    head,
    heads,
    output_head,
    GROUP: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    DIM: tl.constexpr,
    SPLITS_AT_ONCE: tl.constexpr,
):
    """The splits of a sequence and KV head, weighed by their sums, to the output."""
    ROWS: tl.constexpr = triton.next_power_of_2(GROUP)
    rows = tl.arange(0, ROWS)
    dims = tl.arange(0, DIM)
    maximum = tl.full([ROWS], float("-inf"), tl.float32)
    total = tl.zeros([ROWS], tl.float32)
    accumulator = tl.zeros([ROWS, DIM], tl.float32)
    for start in range(0, num_splits, SPLITS_AT_ONCE):
        splits = start + tl.arange(0, SPLITS_AT_ONCE)
        places = (first_place + splits[:, None]) * heads + head * GROUP + rows[None, :]
        here = (splits[:, None] < num_splits) & (rows[None, :] < GROUP)
        # Written by other multiprocessors in this launch: read past this one's own cache.
        lse = tl.load(partial_lse + places, mask=here, other=float("-inf"), cache_modifier=".cg")
        output = tl.load(
            partial_output + places.to(tl.int64)[:, :, None] * HEAD_DIM + dims[None, None, :],
            mask=here[:, :, None] & (dims[None, None, :] < HEAD_DIM),
            other=0.0,
            cache_modifier=".cg",
        )
        new_maximum = tl.maximum(maximum, tl.max(lse, axis=0))
        safe = tl.where(new_maximum == float("-inf"), 0.0, new_maximum)  # of padding rows
        weights = tl.exp2(lse - safe[None, :])
        decay = tl.exp2(maximum - safe)
        total = total * decay + tl.sum(weights, axis=0)
        accumulator = accumulator * decay[:, None] + tl.sum(output * weights[:, :, None], axis=0)
        maximum = new_maximum
    accumulator = accumulator / tl.where(total > 0, total, 1.0)[:, None]
    tl.store(
        output_rows + rows[:, None] * output_head + dims[None, :],
        accumulator.to(output_rows.dtype.element_ty),
        mask=(rows[:, None] < GROUP) & (dims[None, :] < HEAD_DIM),
    )


def paged_decode(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_table: Tensor,
    plan: DecodePlan,
    *,
    scale: float,
    output: Tensor | None = None,
    debug: bool = False,
) -> Tensor:
    """Attention of one new token a sequence over its blocks, [sequences, heads, head_dim].

    `query` is [sequences, heads, head_dim]; the caches [blocks, block_size, kv_heads, head_dim]
    may be views of one tensor; `block_table` [sequences, width] int32 names each sequence's
    blocks in order. `plan` was built from the context lengths, the new tokens included. Writes
    `output` if it is given, and the plan's partial results. `debug` has the lengths and every
    block id checked first, which waits for the device.

    Raises:
        KernelError: a wrong type, shape, stride or device; under `debug` a length below 1 or a
            block id out of range.
    """
    check_query(query)
    check_block_size(key_cache.shape[1])
    check_tensor(
        "block_table", block_table, shape=(len(query), None), dtype=torch.int32,
        device=query.device, contiguous=True,
    )  # fmt: skip
    if debug:
        check_blocks_in_range(block_table, plan.context_lengths, *key_cache.shape[:2])
    return _decode(query, key_cache, value_cache, block_table, plan, scale, output, paged=True)


def contiguous_decode(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    first_blocks: Tensor,
    plan: DecodePlan,
    *,
    scale: float,
    output: Tensor | None = None,
) -> Tensor:
    """`paged_decode` without the table: sequence s lies in consecutive blocks from
    `first_blocks[s]` (int32) on. Keys [tokens, …] are `keys.view(-1, block_size, …)`.
    """
    check_query(query)
    check_tensor(
        "first_blocks", first_blocks, shape=(len(query),), dtype=torch.int32,
        device=query.device, contiguous=True,
    )  # fmt: skip
    return _decode(query, key_cache, value_cache, first_blocks, plan, scale, output, paged=False)


def _decode(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    blocks: Tensor,
    plan: DecodePlan,
    scale: float,
    output: Tensor | None,
    *,
    paged: bool,
) -> Tensor:
    check_caches(query, key_cache, value_cache)
    sequences, heads, head_dim = query.shape
    kv_heads = key_cache.shape[2]
    made_for = (plan.heads, plan.kv_heads, plan.head_dim, plan.dtype)
    require(
        made_for == (heads, kv_heads, head_dim, query.dtype),
        f"the plan was made for (heads, kv_heads, head_dim, type) {made_for}; "
        f"this is {(heads, kv_heads, head_dim, query.dtype)}",
    )
    require(
        plan.num_sequences == sequences,
        f"the plan was built for {plan.num_sequences} sequences; the query has {sequences}",
    )
    if output is None:
        output = torch.empty_like(query, memory_format=torch.contiguous_format)
    check_tensor("output", output, shape=tuple(query.shape), dtype=query.dtype, device=query.device)
    group = heads // kv_heads
    dim = triton.next_power_of_2(head_dim)
    decode_kernel[(kv_heads, sequences + plan.target_splits)](
        output, query, key_cache, value_cache, blocks,
        plan.records, plan.partial_output, plan.partial_lse, plan.arrivals,
        scale * LOG2_E, kv_heads, plan.target_splits,
        output.stride(0), output.stride(1), query.stride(0), query.stride(1),
        *key_cache.stride()[:3], blocks.stride(0),
        PAGED=paged,
        BLOCK_SIZE=key_cache.shape[1],
        GROUP=group,
        ROWS=decode_rows(group),
        HEAD_DIM=head_dim,
        DIM=dim,
        TILE=plan.tiles.tokens,
        FIELDS=plan.records.shape[1],
        SPLITS_AT_ONCE=max(1, 8192 // (dim * triton.next_power_of_2(group))),
        PRECISION="ieee" if query.dtype == torch.float32 else "tf32",
        EARLY=starts_early(query.device),
        # Records are read before the kernel before has ended, so it must not be the plan's.
        launch_pdl=starts_early(query.device) and plan.is_read,
        num_warps=plan.tiles.warps,
        # A tile's block ids are fetched as far ahead of its keys as these of their use.
        num_stages=2 * plan.tiles.stages - 1 if paged else plan.tiles.stages,
    )  # fmt: skip
    plan.is_read = True
    return output
