"""`copy_blocks`: blocks of every layer from tensor to tensor in one launch.

On one device that is a copy on write; between a device and pinned host memory, which a kernel
reaches directly, it is a swap. A swap runs beside the model and leaves it nearly all of the device.
"""

from collections.abc import Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from schedsim.kernels.checks import check_on_gpu, require

WORDS_AT_ONCE = 4096
"""int64 words that a program has on their way at once: 32 KiB."""

SWAP_PROGRAMS = 16
"""Programs of a swap, which have four times as much on its way as a bus of 53 GB/s takes in the
2 µs that one word travels. More would wait for the bus on multiprocessors that the model wants."""


@triton.jit(do_not_specialize=["pieces"])
def copy_blocks_kernel(
    # tensors
    addresses,  # [2, layers] int64: of the source layers, of the target layers
    pairs,  # [pairs, 2] int64: source block, target block
    # sizes
    block_words,  # int64 words of a block
    layers,
    pieces,  # of WORDS: those of a block, of all layers, of all pairs
    # constants
    WORDS: tl.constexpr,  # at once
):
    in_block = tl.cdiv(block_words, WORDS)
    for piece in range(tl.program_id(0), pieces, tl.num_programs(0)):
        words = piece % in_block * WORDS + tl.arange(0, WORDS)
        inside = words < block_words
        layer = piece // in_block % layers
        pair = pairs + piece // in_block // layers * 2
        # Blocks begin at multiples of 16 bytes: two words a load.
        source = tl.load(addresses + layer).to(tl.pointer_type(tl.int64))
        target = tl.load(addresses + layers + layer).to(tl.pointer_type(tl.int64))
        source = tl.multiple_of(source + tl.load(pair) * block_words, 16)
        target = tl.multiple_of(target + tl.load(pair + 1) * block_words, 16)
        tl.store(target + words, tl.load(source + words, mask=inside), mask=inside)


def copy_blocks(
    sources: Sequence[Tensor], targets: Sequence[Tensor], pairs: Sequence[tuple[int, int]]
) -> None:
    """Copy `pairs` of (source block, target block) in every layer, in stream order.

    `sources` and `targets` hold a tensor a layer, [blocks, …], all of one form but for the number
    of blocks, on a device or in pinned host memory; they may be the same tensors. Mutates
    `targets`. No block may be the target of two pairs, nor, where the tensors are the same, source
    of one and target of another: the copies have no order.

    Raises:
        KernelError: tensors that differ in form, are not dense or are out of a kernel's reach; a
            block out of range; pairs that depend on each other.
    """
    require(
        len(sources) == len(targets) > 0,
        f"{len(sources)} source layers and {len(targets)} target layers",
    )
    if not pairs:
        return
    for role, layers in (("source", sources), ("target", targets)):
        for tensor in layers:
            _check_layer(role, tensor, sources[0])
    source_ids, target_ids = zip(*pairs, strict=True)
    for role, ids, layers in (("source", source_ids, sources), ("target", target_ids, targets)):
        limit = min(len(tensor) for tensor in layers)
        wrong = [block for block in ids if not 0 <= block < limit]
        require(not wrong, f"{role} block {wrong[:1]} is out of range; 0 to {limit - 1}")
    require(len(set(target_ids)) == len(target_ids), f"a block is the target of two of {pairs}")
    same = sources[0].data_ptr() == targets[0].data_ptr()
    require(
        not same or not set(source_ids) & set(target_ids),
        f"a block is source and target in {pairs}: the copies have no order",
    )
    device = next((t.device for t in (sources[0], targets[0]) if t.is_cuda), sources[0].device)
    addresses = [tensor.data_ptr() for layers in (sources, targets) for tensor in layers]
    numbers = torch.tensor([*addresses, *(block for pair in pairs for block in pair)])
    if device.type == "cuda":
        numbers = numbers.pin_memory()  # or the copy would wait for the device
    numbers = numbers.to(device, non_blocking=True)
    block_words = sources[0].stride(0) * sources[0].element_size() // 8
    pieces = triton.cdiv(block_words, WORDS_AT_ONCE) * len(sources) * len(pairs)
    is_swap = not (sources[0].is_cuda and targets[0].is_cuda)
    copy_blocks_kernel[(min(pieces, SWAP_PROGRAMS) if is_swap else pieces,)](
        numbers,
        numbers[len(addresses) :],
        block_words,
        len(sources),
        pieces,
        WORDS=WORDS_AT_ONCE,
        num_warps=8,
    )


def _check_layer(role: str, tensor: Tensor, first: Tensor) -> None:
    require(
        tensor.shape[1:] == first.shape[1:] and tensor.dtype == first.dtype,
        f"a {role} layer is {tensor.dtype} {list(tensor.shape)}, the first source layer "
        f"{first.dtype} {list(first.shape)}: blocks differ",
    )
    require(tensor.is_contiguous(), f"a {role} layer has strides {tensor.stride()}, is not dense")
    require(
        tensor.stride(0) * tensor.element_size() % 16 == 0 and tensor.data_ptr() % 16 == 0,
        f"a {role} layer's blocks are no multiples of 16 bytes",
    )
    if not tensor.is_cuda and not tensor.is_pinned():
        check_on_gpu(f"a {role} layer that is not pinned", tensor)
