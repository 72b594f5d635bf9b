"""Attention of a ragged batch over the KV cache: the one function, and its reference in torch.

The reference is plain, runs on any device and keeps float64; a faster backend is any other
function of type `Attention`.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class AttentionMetadata:
    """Where the keys of each sequence of a batch lie.

    The batch's T tokens are those of sequence 0, then of sequence 1, and so on: `query_lengths[s]`
    of sequence s. They are the last of its `context_lengths[s]` tokens, whose keys are all in the
    cache. Paged form: `block_tables` [sequences, width] int64 names its blocks in order, padded
    with the null block. Contiguous form: `first_blocks[s]` is the first of its consecutive blocks.
    One of the two is given.
    """

    query_lengths: tuple[int, ...]
    context_lengths: tuple[int, ...]
    block_tables: Tensor | None = None
    first_blocks: tuple[int, ...] | None = None


Attention = Callable[[Tensor, Tensor, AttentionMetadata], Tensor]
"""(query [T, heads, head_dim], layer cache, metadata) to the output [T, heads, head_dim]."""


def attention(query: Tensor, layer_cache: Tensor, metadata: AttentionMetadata) -> Tensor:
    """Causal attention of each new token over its own sequence, in the type of `query`.

    `query` is [T, heads, head_dim]; `layer_cache` is [blocks, 2, block_size, kv_heads, head_dim],
    keys before values, the new tokens' written already. Query head h reads KV head
    h // (heads / kv_heads). Nothing is mutated. A sequence's output does not depend on the other
    sequences of the batch.
    """
    outputs = []
    start = 0
    for sequence, query_length in enumerate(metadata.query_lengths):
        keys, values = _keys_values(layer_cache, metadata, sequence)
        outputs.append(_attend(query[start : start + query_length], keys, values))
        start += query_length
    return torch.cat(outputs)


def _keys_values(
    layer_cache: Tensor, metadata: AttentionMetadata, sequence: int
) -> tuple[Tensor, Tensor]:
    """The keys and values of a sequence's context, each [context_length, kv_heads, head_dim]."""
    context_length = metadata.context_lengths[sequence]
    num_blocks = -(-context_length // layer_cache.shape[2])
    if metadata.block_tables is not None:
        blocks = layer_cache[metadata.block_tables[sequence, :num_blocks]]
    else:
        assert metadata.first_blocks is not None, "metadata holds neither tables nor ranges"
        first = metadata.first_blocks[sequence]
        blocks = layer_cache[first : first + num_blocks]
    keys, values = blocks[:, 0].flatten(0, 1), blocks[:, 1].flatten(0, 1)
    return keys[:context_length], values[:context_length]


def _attend(query: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """Causal attention of the last `len(query)` tokens of one sequence over all its tokens."""
    query_length, heads, head_dim = query.shape
    context_length, kv_heads, _ = keys.shape
    precise = torch.promote_types(query.dtype, torch.float32)
    grouped = query.to(precise).view(query_length, kv_heads, heads // kv_heads, head_dim)
    scores = torch.einsum("qkgd,ckd->kgqc", grouped, keys.to(precise)) * head_dim**-0.5
    if query_length > 1:
        future = torch.ones(
            query_length, context_length, dtype=torch.bool, device=query.device
        ).triu(context_length - query_length + 1)
        scores = scores.masked_fill(future, -torch.inf)
    output = torch.einsum("kgqc,ckd->qkgd", scores.softmax(dim=-1), values.to(precise))
    return output.reshape(query_length, heads, head_dim).to(query.dtype)
