"""`write_kv`: new keys and values to their places in the cache, with RoPE and QK-norm."""

from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from schedsim.kernels.checks import (
    DTYPES,
    check_block_size,
    check_caches,
    check_on_gpu,
    check_tensor,
    require,
)

HEADS_PER_PROGRAM = 8


class QKNorm(NamedTuple):
    """RMS norm of each query and key head before the rotation: weights [head_dim], epsilon."""

    query_weight: Tensor
    key_weight: Tensor
    epsilon: float


@triton.jit
def write_kv_kernel(
    # tensors
    query,  # [tokens, heads, HEAD_DIM], written
    key_cache,  # [blocks, block_size, kv_heads, HEAD_DIM], written
    value_cache,  # the same form and strides, written
    projected,  # [tokens, heads + 2 · kv_heads, HEAD_DIM]
    cos,  # [tokens, HEAD_DIM / 2]
    sin,
    slots,  # [tokens] int64
    query_weight,  # [HEAD_DIM], NORM alone
    key_weight,
    # sizes
    epsilon,
    heads,
    kv_heads,
    block_size,
    # strides
    query_token,
    projected_token,
    projected_head,
    rotation_token,
    cache_block,
    cache_token,
    cache_head,
    # constants
    NORM: tl.constexpr,
    HEAD_DIM: tl.constexpr,
    HALF: tl.constexpr,  # HEAD_DIM / 2 padded to a power of two
    HEADS: tl.constexpr,  # at once
):
    token = tl.program_id(0).to(tl.int64)
    head = tl.program_id(1) * HEADS + tl.arange(0, HEADS)
    dims = tl.arange(0, HALF)
    in_half = dims[None, :] < HEAD_DIM // 2
    inside = (head < heads + 2 * kv_heads)[:, None] & in_half
    is_query = (head < heads)[:, None]
    is_value = (head >= heads + kv_heads)[:, None]

    # ---- the two halves of each head, whose elements rotate in pairs
    source = projected + token * projected_token + head[:, None] * projected_head + dims[None, :]
    raw_first = tl.load(source, mask=inside, other=0.0)
    raw_second = tl.load(source + HEAD_DIM // 2, mask=inside, other=0.0)
    first, second = raw_first.to(tl.float32), raw_second.to(tl.float32)
    if NORM:
        squares = tl.sum(first * first, axis=1) + tl.sum(second * second, axis=1)
        inverse = tl.rsqrt(squares / HEAD_DIM + epsilon)[:, None]
        weight = tl.where(is_query, query_weight + dims[None, :], key_weight + dims[None, :])
        first *= inverse * tl.load(weight, mask=inside, other=0.0).to(tl.float32)
        second *= inverse * tl.load(weight + HEAD_DIM // 2, mask=inside, other=0.0).to(tl.float32)
    rotation = token * rotation_token + dims
    c = tl.load(cos + rotation, mask=dims < HEAD_DIM // 2, other=0.0).to(tl.float32)[None, :]
    s = tl.load(sin + rotation, mask=dims < HEAD_DIM // 2, other=0.0).to(tl.float32)[None, :]
    dtype: tl.constexpr = query.dtype.element_ty
    first, second = (first * c - second * s).to(dtype), (second * c + first * s).to(dtype)

    # ---- queries to the output, keys and values to the token's slot; values as they came
    target = query + token * query_token + head[:, None] * HEAD_DIM + dims[None, :]
    tl.store(target, first, mask=inside & is_query)
    tl.store(target + HEAD_DIM // 2, second, mask=inside & is_query)
    slot = tl.load(slots + token)
    place = (slot // block_size) * cache_block + (slot % block_size) * cache_token
    kv_head = tl.where(is_value, head[:, None] - heads - kv_heads, head[:, None] - heads)
    place = place + kv_head * cache_head + dims[None, :]
    is_key = inside & (is_query == 0) & (is_value == 0)
    tl.store(key_cache + place, first, mask=is_key)
    tl.store(key_cache + place + HEAD_DIM // 2, second, mask=is_key)
    tl.store(value_cache + place, raw_first, mask=inside & is_value)
    tl.store(value_cache + place + HEAD_DIM // 2, raw_second, mask=inside & is_value)


def write_kv(
    projected: Tensor,
    key_cache: Tensor,
    value_cache: Tensor,
    slots: Tensor,
    cos: Tensor,
    sin: Tensor,
    *,
    norm: QKNorm | None = None,
    debug: bool = False,
) -> Tensor:
    """Rotated queries [tokens, heads, head_dim]; keys, rotated, and values go to their slots.

    `projected` [tokens, heads + 2 · kv_heads, head_dim] holds queries, keys and values; `cos` and
    `sin` [tokens, head_dim / 2] turn the pairs (i, i + head_dim / 2); `slots` [tokens] int64 is
    block · block_size + offset. Mutates the caches [blocks, block_size, kv_heads, head_dim].
    Tokens that share a slot leave one of them there. `debug` has every slot checked first, which
    waits for the device.

    Raises:
        KernelError: a wrong type, shape, stride or device; under `debug` a slot out of range.
    """
    require(
        projected.dim() == 3 and len(projected) > 0,
        f"projected has shape {list(projected.shape)}; [tokens, heads + 2 · kv_heads, head_dim]",
    )
    require(projected.dtype in DTYPES, f"projected is {projected.dtype}; supported are {DTYPES}")
    check_on_gpu("projected", projected)
    num_tokens, all_heads, head_dim = projected.shape
    num_blocks, block_size, kv_heads = key_cache.shape[:3]
    heads = all_heads - 2 * kv_heads
    require(heads > 0, f"projected has {all_heads} heads, no more than 2 × {kv_heads} KV heads")
    device = projected.device
    query = torch.empty(num_tokens, heads, head_dim, dtype=projected.dtype, device=device)
    check_caches(query, key_cache, value_cache)
    check_block_size(block_size)
    shape = tuple(projected.shape)
    check_tensor("projected", projected, shape=shape, dtype=projected.dtype, device=device)
    check_tensor(
        "slots", slots, shape=(num_tokens,), dtype=torch.int64, device=device, contiguous=True
    )
    for name, rotation in (("cos", cos), ("sin", sin)):
        require(
            rotation.shape == (num_tokens, head_dim // 2)
            and rotation.device == device
            and rotation.stride() == cos.stride()
            and rotation.stride(1) == 1,
            f"{name} is {list(rotation.shape)} with strides {rotation.stride()} on "
            f"{rotation.device}; [{num_tokens}, {head_dim // 2}], dense rows, {device}",
        )
    for weight in norm[:2] if norm else ():
        check_tensor(
            "a norm's weight", weight, shape=(head_dim,), dtype=projected.dtype, device=device,
            contiguous=True,
        )  # fmt: skip
    if debug:
        wrong = slots[(slots < 0) | (slots >= num_blocks * block_size)].tolist()
        require(not wrong, f"slot {wrong[:1]} is out of range; 0 to {num_blocks * block_size - 1}")
    weights = norm[:2] if norm else (projected, projected)  # pointers that are not read
    write_kv_kernel[(num_tokens, triton.cdiv(all_heads, HEADS_PER_PROGRAM))](
        query, key_cache, value_cache, projected, cos, sin, slots, *weights,
        norm.epsilon if norm else 0.0, heads, kv_heads, block_size,
        query.stride(0), *projected.stride()[:2], cos.stride(0), *key_cache.stride()[:3],
        NORM=norm is not None,
        HEAD_DIM=head_dim,
        HALF=triton.next_power_of_2(head_dim // 2),
        HEADS=HEADS_PER_PROGRAM,
        num_warps=4,
    )  # fmt: skip
    return query
