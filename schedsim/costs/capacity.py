"""How many KV blocks fit beside a model: a fallback for `--blocks`, which is exact."""

import math
from typing import NamedTuple

from schedsim.costs.gpus import GPUSpec, list_gpus, load_gpu
from schedsim.costs.models import ModelSpec
from schedsim.errors import ConfigError

MEMORY_UTILIZATION = 0.9
"""Share of device memory that the engine may use, vLLM's default."""

WORKSPACE_GIB = 2.0
"""Room on each GPU for activations, CUDA graphs and the runtime."""


class KVCapacity(NamedTuple):
    """Usable blocks, the bytes they take on all GPUs, and a line that says how it was found."""

    blocks: int
    kv_bytes: int
    explanation: str


def kv_blocks(
    model: ModelSpec,
    gpu: GPUSpec,
    tensor_parallel: int = 1,
    block_size: int = 16,
    memory_utilization: float = MEMORY_UTILIZATION,
    workspace_gib: float = WORKSPACE_GIB,
) -> KVCapacity:
    """Blocks of `block_size` tokens in the memory that weights and workspace leave on each GPU.

    A fallback: an engine measures what its activations need, so its count differs by some per cent,
    which moves latencies under pressure by more. Give the engine's own count where it is known.

    Raises:
        ConfigError: not one block is left, and what would do; the heads cannot be split over
            `tensor_parallel` GPUs; `memory_utilization` or `workspace_gib` is out of range.
    """
    if not 0.0 < memory_utilization <= 1.0:
        raise ConfigError(f"memory_utilization={memory_utilization} is not above 0 and up to 1")
    if not 0.0 <= workspace_gib < math.inf:
        raise ConfigError(f"workspace_gib={workspace_gib} is negative or not finite")

    def blocks_on(gpu: GPUSpec, degree: int) -> int:
        allowed = memory_utilization * gpu.memory_bytes - workspace_gib * 2**30
        block_bytes = block_size * model.kv_bytes_per_token_on_gpu(degree)
        return int((allowed - model.weight_bytes / degree) // block_bytes)

    blocks = blocks_on(gpu, tensor_parallel)
    each = (
        f"{memory_utilization:.0%} of {gpu.memory_bytes / 2**30:.1f} GiB on each of "
        f"{tensor_parallel} × {gpu.name}, less {workspace_gib:g} GiB of workspace and "
        f"{model.weight_bytes / tensor_parallel / 2**30:.1f} GiB of weights"
    )
    if blocks < 1:
        remedies = [
            f"--tensor-parallel {degree}"
            for degree in model.tensor_parallel_degrees()
            if degree > tensor_parallel and blocks_on(gpu, degree) >= 1
        ][:1]
        remedies += [
            f"--gpu {name}"
            for name, _ in list_gpus()
            if blocks_on(load_gpu(name), tensor_parallel) >= 1
        ]
        raise ConfigError(
            f"{model.name} leaves no room for a KV block of {block_size} tokens: {each}. "
            + "".join(f"{remedy} fits it; " for remedy in remedies)
            + "--blocks N simulates a cache of that size all the same"
        )
    explanation = f"{blocks} KV blocks of {block_size} by formula: {each}; --blocks is exact"
    kv_bytes = blocks * block_size * model.kv_bytes_per_token_on_gpu(tensor_parallel)
    return KVCapacity(blocks, kv_bytes * tensor_parallel, explanation)
