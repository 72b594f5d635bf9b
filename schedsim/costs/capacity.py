"""How many KV blocks fit beside a model: a fallback for `--blocks`, which is exact."""

from typing import NamedTuple

from schedsim.costs.gpus import GPUSpec
from schedsim.costs.models import ModelSpec
from schedsim.errors import ConfigError

MEMORY_UTILIZATION = 0.9
"""Share of device memory that the engine may use, vLLM's default."""

WORKSPACE_GIB = 2.0
"""Room on each GPU for activations, graphs and the runtime."""


class KVCapacity(NamedTuple):
    """Usable blocks, the bytes they take on all GPUs, and a line that says how it was found."""

    blocks: int
    kv_bytes: int
    explanation: str


def kv_blocks(
    model: ModelSpec, gpu: GPUSpec, tensor_parallel: int = 1, block_size: int = 16
) -> KVCapacity:
    """Blocks of `block_size` tokens in the memory that weights and workspace leave.

    Raises:
        ConfigError: nothing is left; says what would do.
    """
    usable = tensor_parallel * (MEMORY_UTILIZATION * gpu.memory_bytes - WORKSPACE_GIB * 2**30)
    left = usable - model.weight_bytes
    block_bytes = block_size * model.kv_bytes_per_token
    blocks = int(left // block_bytes)
    if blocks < 1:
        raise ConfigError(
            f"{model.name} needs {model.weight_bytes / 2**30:.1f} GiB for its weights; "
            f"{tensor_parallel} × {gpu.name} leaves {usable / 2**30:.1f} GiB after workspace and "
            "runtime: raise --tensor-parallel, choose another --gpu, or give --blocks"
        )
    explanation = (
        f"{blocks} KV blocks of {block_size} by formula: {MEMORY_UTILIZATION:.0%} of "
        f"{tensor_parallel} × {gpu.memory_gib:g} GiB, less {WORKSPACE_GIB:g} GiB of workspace each "
        f"and {model.weight_bytes / 2**30:.1f} GiB of weights; --blocks is exact"
    )
    return KVCapacity(blocks, blocks * block_bytes, explanation)
