"""What every wrapper checks before it launches: one error type, and the checks several share."""

import torch
import triton
from torch import Tensor

HEAD_DIMS = (64, 80, 96, 128, 256)
DTYPES = (torch.bfloat16, torch.float16, torch.float32)


class KernelError(ValueError):
    """A kernel was called with something that it does not take; says what, and what it takes."""


def require(condition: bool, message: str) -> None:
    """Raise `message` as a `KernelError` unless `condition` holds."""
    if not condition:
        raise KernelError(message)


def check_heads(heads: int, kv_heads: int, head_dim: int) -> None:
    """Heads in equal groups, and a head dimension that the kernels are tested with."""
    require(head_dim in HEAD_DIMS, f"head_dim is {head_dim}; supported are {HEAD_DIMS}")
    require(
        kv_heads > 0 and heads % kv_heads == 0,
        f"{heads} query heads cannot be shared by {kv_heads} KV heads in equal groups",
    )


def check_tensor(
    name: str,
    tensor: Tensor,
    *,
    shape: tuple[int | None, ...],
    dtype: torch.dtype,
    device: torch.device,
    contiguous: bool = False,
) -> None:
    """Shape (None takes any size), type, device, and strides: unit in the last dimension.

    The other strides must be multiples of 16 bytes, which the loads rely on; `contiguous` wants
    the tensor dense.
    """
    expected = "[" + ", ".join("any" if size is None else str(size) for size in shape) + "]"
    fits = tensor.dim() == len(shape) and all(
        size is None or size == actual for size, actual in zip(shape, tensor.shape, strict=True)
    )
    require(fits, f"{name} has shape {list(tensor.shape)}; {expected} is expected")
    require(tensor.dtype == dtype, f"{name} is {tensor.dtype}; {dtype} is expected")
    require(tensor.device == device, f"{name} lies on {tensor.device}; {device} is expected")
    if contiguous:
        require(tensor.is_contiguous(), f"{name} is not contiguous: strides {tensor.stride()}")
    elif tensor.dim() > 1:
        check_strides(name, tensor)


def check_strides(name: str, tensor: Tensor) -> None:
    """Unit stride in the last dimension, the others multiples of 16 bytes, the start aligned."""
    require(
        tensor.stride(-1) == 1,
        f"{name} has stride {tensor.stride(-1)} in its last dimension; 1 is expected",
    )
    step = 16 // tensor.element_size()
    aligned = all(
        stride % step == 0
        for stride, size in zip(tensor.stride()[:-1], tensor.shape, strict=False)
        if size > 1
    )
    require(
        aligned and tensor.data_ptr() % 16 == 0,
        f"{name} has strides {tensor.stride()} or a start that are no multiples of 16 bytes",
    )


def check_on_gpu(name: str, tensor: Tensor) -> None:
    """A tensor that the kernels reach: on a CUDA device, or anywhere in Triton's interpreter."""
    require(
        tensor.is_cuda or bool(triton.knobs.runtime.interpret),
        f"{name} lies on {tensor.device}; the kernels run on a CUDA device",
    )


def check_query(query: Tensor) -> None:
    """A query [tokens, heads, head_dim] of a supported type; the device is the caller's choice."""
    require(query.dim() == 3, f"query has shape {list(query.shape)}; [tokens, heads, head_dim]")
    require(len(query) > 0, "query holds no token")
    require(query.dtype in DTYPES, f"query is {query.dtype}; supported are {DTYPES}")
    check_on_gpu("query", query)
    check_strides("query", query)


def check_caches(query: Tensor, key_cache: Tensor, value_cache: Tensor) -> None:
    """Two caches [blocks, block_size, kv_heads, head_dim] that fit `query` and share strides."""
    for name, cache in (("key_cache", key_cache), ("value_cache", value_cache)):
        require(
            cache.dim() == 4,
            f"{name} has shape {list(cache.shape)}; [blocks, block_size, kv_heads, head_dim]",
        )
        check_tensor(
            name,
            cache,
            shape=(None, None, None, query.shape[2]),
            dtype=query.dtype,
            device=query.device,
        )
    require(
        key_cache.shape == value_cache.shape and key_cache.stride() == value_cache.stride(),
        f"key_cache {list(key_cache.shape)} with strides {key_cache.stride()} and value_cache "
        f"{list(value_cache.shape)} with strides {value_cache.stride()} differ",
    )
    reach = (len(key_cache) - 1) * key_cache.stride(0) * key_cache.element_size()
    require(reach < 2**35, f"the caches span {reach / 2**30:.0f} GiB; at most 32 are supported")
    check_heads(query.shape[1], key_cache.shape[2], query.shape[2])


def check_block_size(block_size: int) -> None:
    """A power of two from 16 to 256."""
    require(
        block_size in (16, 32, 64, 128, 256),
        f"block size is {block_size}; supported are 16, 32, 64, 128 and 256",
    )


def check_blocks_in_range(
    block_table: Tensor, context_lengths: Tensor, num_blocks: int, block_size: int
) -> None:
    """The debug check: every block that a context needs is a block of the cache. Waits for the GPU.

    Raises:
        KernelError: a length below 1, a context longer than its table, or an id out of range;
            names the sequence.
    """
    lengths = context_lengths.long().cpu()
    tables = block_table.long().cpu()
    for sequence, length in enumerate(lengths.tolist()):
        require(length >= 1, f"sequence {sequence} has a context of {length} tokens")
        needed = -(-length // block_size)
        require(
            needed <= tables.shape[1],
            f"sequence {sequence} has {length} tokens, more than {tables.shape[1]} blocks hold",
        )
        used = tables[sequence, :needed]
        wrong = used[(used < 0) | (used >= num_blocks)].tolist()
        require(
            not wrong,
            f"sequence {sequence} names block {wrong[:1]}; the cache holds 0 to {num_blocks - 1}",
        )
