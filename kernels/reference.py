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


def write_kv(
    projected: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    slots: Tensor,
    cos: Tensor,
    sin: Tensor,
    norm: tuple[Tensor, Tensor, float] | None = None,
) -> Tensor:
    """Rotated queries in the caches' type; mutates the caches. Float64 caches keep precision."""
    dtype = key_cache.dtype
    block_size, kv_heads = key_cache.shape[1:3]
    heads = projected.shape[1] - 2 * kv_heads
    query, key, value = projected.to(dtype).split((heads, kv_heads, kv_heads), dim=1)
    if norm is not None:
        query = rms_norm(query, norm[0].to(dtype), norm[2])
        key = rms_norm(key, norm[1].to(dtype), norm[2])
    key_cache[slots // block_size, slots % block_size] = _rotate(key, cos.to(dtype), sin.to(dtype))
    value_cache[slots // block_size, slots % block_size] = value
    return _rotate(query, cos.to(dtype), sin.to(dtype))


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos[:, None], sin[:, None]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def rms_norm(x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """weight · x / √(mean x² + epsilon) over the last dimension."""
    return weight * x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + epsilon)


def silu_and_mul(x: Tensor) -> Tensor:
    """silu of the first half of the last dimension times the second half."""
    gate, up = x.chunk(2, dim=-1)
    return torch.nn.functional.silu(gate) * up


def sample(logits: Tensor, temperatures: Tensor, seeds: Tensor) -> Tensor:
    """The token of each row with the largest logit / temperature + Gumbel noise; 0 is greedy.

    −1 for a row that holds NaN or infinity.
    """
    scores = logits.float()
    tokens = torch.arange(logits.shape[1], device=logits.device)
    drawn = torch.empty(len(logits), dtype=torch.int64, device=logits.device)
    for row, (temperature, seed) in enumerate(
        zip(temperatures.tolist(), seeds.tolist(), strict=True)
    ):
        noisy = scores[row]
        if temperature > 0:
            words = philox(seed, tokens // 4).gather(0, tokens[None] % 4)[0]
            uniform = ((words >> 9).float() + 0.5) / 2**23
            noisy = noisy / temperature - (-uniform.log()).log()
        drawn[row] = noisy.argmax() if scores[row].isfinite().all() else -1
    return drawn


def philox(seed: int, counters: Tensor) -> Tensor:
    """Philox 4×32-10 (Salmon et al., SC11): four words [4, counters] each, int64 below 2^32."""
    mask = 0xFFFFFFFF
    key = [seed & mask, (seed >> 32) & mask]
    words = [counters & mask, *(torch.zeros_like(counters) for _ in range(3))]
    for _ in range(10):
        high0, low0 = _multiply(words[0], 0xD2511F53)
        high1, low1 = _multiply(words[2], 0xCD9E8D57)
        words = [high1 ^ words[1] ^ key[0], low1, high0 ^ words[3] ^ key[1], low0]
        key = [(key[0] + 0x9E3779B9) & mask, (key[1] + 0xBB67AE85) & mask]
    return torch.stack(words)


def _multiply(a: Tensor, b: int) -> tuple[Tensor, Tensor]:
    """High and low word of the 64-bit product of two 32-bit words; int64 would overflow."""
    low = (a & 0xFFFF) * b
    high = (a >> 16) * b + (low >> 16)
    return high >> 16, ((high & 0xFFFF) << 16) | (low & 0xFFFF)
