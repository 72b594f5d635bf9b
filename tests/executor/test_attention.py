"""The reference attention equals a naive one, token by token, in float64."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from schedsim.executor.attention import AttentionMetadata, attention


def naive(query: Any, keys: Any, values: Any, context_length: int) -> Any:
    """Softmax attention by the definition, in Python floats; one sequence."""
    query_length, heads, head_dim = query.shape
    group = heads // keys.shape[1]
    output = torch.zeros_like(query, dtype=torch.float64)
    for row in range(query_length):
        visible = context_length - query_length + row + 1
        for head in range(heads):
            q = query[row, head].tolist()
            scores = []
            for position in range(visible):
                k = keys[position, head // group].tolist()
                dot = math.fsum(a * b for a, b in zip(q, k, strict=True))
                scores.append(dot / math.sqrt(head_dim))
            top = max(scores)
            shares = [math.exp(score - top) for score in scores]
            total = math.fsum(shares)
            for position, share in enumerate(shares):
                output[row, head] += share / total * values[position, head // group].double()
    return output


@given(
    lengths=st.lists(
        st.tuples(st.integers(1, 5), st.integers(0, 7)), min_size=1, max_size=4
    ),  # query length, cached tokens before it
    heads=st.sampled_from([(1, 1), (4, 2), (3, 1), (2, 2)]),
    block_size=st.integers(1, 5),
    is_contiguous=st.booleans(),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    seed=st.integers(0, 99),
)
def test_attention_equals_the_definition(
    lengths: list[tuple[int, int]],
    heads: tuple[int, int],
    block_size: int,
    is_contiguous: bool,
    dtype: torch.dtype,
    seed: int,
) -> None:
    generator = torch.Generator().manual_seed(seed)
    query_heads, kv_heads = heads
    head_dim = 4
    query_lengths = tuple(new for new, _ in lengths)
    context_lengths = tuple(new + old for new, old in lengths)
    counts = [-(-length // block_size) for length in context_lengths]
    total = sum(counts)
    order = torch.arange(total) if is_contiguous else torch.randperm(total, generator=generator)
    tables = [table.tolist() for table in (order + 1).split(counts)]
    cache = torch.full((total + 1, 2, block_size, kv_heads, head_dim), torch.nan, dtype=dtype)
    query = torch.randn(
        sum(query_lengths), query_heads, head_dim, generator=generator, dtype=torch.float64
    ).to(dtype)
    expected = []
    start = 0
    for (new, _), context_length, table in zip(lengths, context_lengths, tables, strict=True):
        keys, values = torch.randn(
            2, context_length, kv_heads, head_dim, generator=generator, dtype=torch.float64
        ).to(dtype)
        for position in range(context_length):
            block, offset = table[position // block_size], position % block_size
            cache[block, 0, offset], cache[block, 1, offset] = keys[position], values[position]
        expected.append(naive(query[start : start + new], keys, values, context_length))
        start += new
    if is_contiguous:
        metadata = AttentionMetadata(
            query_lengths, context_lengths, first_blocks=tuple(table[0] for table in tables)
        )
    else:
        padded = torch.zeros(len(tables), max(counts), dtype=torch.int64)
        for row, table in enumerate(tables):
            padded[row, : len(table)] = torch.tensor(table)
        metadata = AttentionMetadata(query_lengths, context_lengths, block_tables=padded)
    output = attention(query, cache, metadata)
    assert output.dtype == dtype
    tolerance = {torch.float64: 1e-12, torch.float32: 1e-5, torch.bfloat16: 2e-2}[dtype]
    torch.testing.assert_close(output.double(), torch.cat(expected), rtol=tolerance, atol=tolerance)
