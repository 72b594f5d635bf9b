"""`paged_attention` of a batch of decodes and chunks: each part by the kernel made for it."""

import torch
from torch import Tensor

from schedsim.kernels.checks import require
from schedsim.kernels.decode import paged_decode
from schedsim.kernels.decode_plan import DecodePlan
from schedsim.kernels.prefill import paged_prefill
from schedsim.kernels.prefill_plan import PrefillPlan


def paged_attention(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_table: Tensor,
    decodes: DecodePlan,
    chunks: PrefillPlan,
    *,
    scale: float,
) -> Tensor:
    """Attention of decodes, which come first, and chunks, [tokens, heads, head_dim].

    `query` [tokens, heads, head_dim] and `block_table` [sequences, width] hold the sequences of
    `decodes`, one token each, then those of `chunks`; caches as in `paged_decode`.

    Raises:
        KernelError: the plans do not cover the query and the table, or as `paged_decode` and
            `paged_prefill` do.
    """
    num_decodes = decodes.num_sequences
    covered = (num_decodes + chunks.num_tokens, num_decodes + chunks.num_sequences)
    require(
        covered == (len(query), len(block_table)),
        f"the plans have {covered[0]} tokens of {covered[1]} sequences; the query has "
        f"{len(query)} tokens, the table {len(block_table)} rows",
    )
    output = torch.empty_like(query, memory_format=torch.contiguous_format)
    paged_prefill(
        query[num_decodes:], key_cache, value_cache, block_table[num_decodes:], chunks,
        scale=scale, output=output[num_decodes:],
    )  # fmt: skip
    paged_decode(
        query[:num_decodes], key_cache, value_cache, block_table[:num_decodes], decodes,
        scale=scale, output=output[:num_decodes],
    )  # fmt: skip
    return output
