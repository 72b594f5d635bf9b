"""What the kernels compute, in plain torch: any device, the precision of the inputs or better."""

import torch
from torch import Tensor


def gather_context(cache: Tensor, blocks: Tensor, length: int) -> Tensor:
    """The first `length` tokens [length, kv_heads, head_dim] of `blocks` of `cache`."""
    return cache[blocks.long()].flatten(0, 1)[:length]


def attention(
    query: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    block_table: Tensor,
    query_lengths: list[int],
    context_lengths: list[int],
    scale: float,
    *,
    dtype: torch.dtype = torch.float64,
) -> Tensor:
    """Causal attention of each sequence's last tokens over its blocks, [tokens, heads, head_dim].

    Sequence s has the next `query_lengths[s]` rows of `query`: the last of its
    `context_lengths[s]` tokens, whose keys lie in the blocks of `block_table[s]`. Computed and
    returned in `dtype`.
    """
    outputs = []
    start = 0
    for sequence, (rows, length) in enumerate(zip(query_lengths, context_lengths, strict=True)):
        keys = gather_context(key_cache, block_table[sequence], length).to(dtype)
        values = gather_context(value_cache, block_table[sequence], length).to(dtype)
        outputs.append(_attend(query[start : start + rows].to(dtype), keys, values, scale))
        start += rows
    return torch.cat(outputs)


def _attend(query: Tensor, keys: Tensor, values: Tensor, scale: float) -> Tensor:
    rows, heads, _ = query.shape
    length, kv_heads, _ = keys.shape
    outputs = []
    for head in range(heads):
        kv_head = head // (heads // kv_heads)
        scores = query[:, head] @ keys[:, kv_head].T * scale
        if rows > 1:
            ones = torch.ones(rows, length, dtype=torch.bool, device=query.device)
            scores = scores.masked_fill(ones.triu(length - rows + 1), -torch.inf)
        outputs.append(scores.softmax(-1) @ values[:, kv_head])
    return torch.stack(outputs, dim=1)


def rows_error(output: Tensor, expected: Tensor) -> float:
    """The largest ‖output − expected‖ / ‖expected‖ of a row (last dimension); NaN stays NaN."""
    expected = expected.double()
    difference = (output.double() - expected).norm(dim=-1)
    return float((difference / expected.norm(dim=-1)).max())
