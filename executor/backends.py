"""What computes a model, by name: `torch`, the reference, and `triton`, our kernels."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from schedsim.content import Content
from schedsim.errors import ConfigError
from schedsim.executor.config import ModelConfig
from schedsim.executor.kept_parts import KeptParts
from schedsim.executor.model import Decoder
from schedsim.executor.runner import ModelRunner
from schedsim.executor.timer import make_timer
from schedsim.executor.weights import DecoderWeights
from schedsim.memory import KVCache
from schedsim.specs import unknown_name

if TYPE_CHECKING:
    from schedsim.executor.kernel_runner import KernelRunner

ATTENTIONS = ("torch", "triton")


def choose_attention(name: str | None, device: torch.device) -> str:
    """The backend called `name`; None takes the kernels on a GPU, torch on a CPU.

    Raises:
        ConfigError: an unknown name, or kernels where they cannot run.
    """
    if name is None:
        return "triton" if device.type == "cuda" else "torch"
    if name not in ATTENTIONS:
        raise unknown_name("attention", name, ATTENTIONS)
    if name == "triton" and device.type != "cuda" and not _interprets():
        raise ConfigError(
            f"--attention triton: the kernels run on a GPU, not on {device}; --attention torch "
            "runs anywhere"
        )
    return name


def make_decoder(attention: str, config: ModelConfig, weights: DecoderWeights) -> Decoder:
    """A decoder of that backend.

    Raises:
        ConfigError: the kernels do not take the model's head dimension or type.
    """
    if attention == "torch":
        return Decoder(config, weights)
    from schedsim.executor.kernel_decoder import KernelDecoder  # imports triton

    return KernelDecoder(config, weights)


def make_runner(
    decoder: Decoder,
    kept: KeptParts,
    kv_cache: KVCache,
    content: Content,
    clock: Callable[[], float],
    *,
    max_seqs: int,
    max_model_len: int,
    temperature: float,
    workspace: int,
    kernels: str | None = None,
) -> "ModelRunner | KernelRunner":
    """What runs batches on `decoder`; `clock` tells the time where the device has none.

    The kernels' parts on the device are `kept` from run to run; the reference allocates its KV
    cache anew. `workspace` bytes are what a forward pass takes beside that.

    `kernels` paged read keys and values by a block table even where they lie in one piece, as the
    reference always does; contiguous need them to.

    Raises:
        ConfigError: no memory for the blocks; the kernels do not take the block size; contiguous
            kernels where blocks lie anywhere; or a temperature without kernels.
    """
    if kernels == "contiguous" and not kv_cache.in_one_piece:
        raise ConfigError(
            "--kernels contiguous read keys and values that lie in one piece, and this memory "
            "gives blocks from anywhere; take --memory contiguous or buddy, or leave it out"
        )
    if type(decoder) is Decoder:
        if temperature:
            raise ConfigError(
                f"--temperature {temperature}: --attention torch takes the likeliest token only"
            )
        store = decoder.new_store(
            kv_cache.total_blocks, kv_cache.block_size, num_host_blocks=kv_cache.host_blocks
        )
        return ModelRunner(decoder, store, kv_cache, content, make_timer(decoder.device, clock))
    from schedsim.executor.device_clock import CudaClock, HostClock
    from schedsim.executor.kernel_decoder import KernelDecoder
    from schedsim.executor.kernel_runner import KernelRunner

    assert isinstance(decoder, KernelDecoder), "a decoder of no backend"
    return KernelRunner(
        decoder,
        kept,
        kv_cache,
        content,
        CudaClock() if decoder.device.type == "cuda" else HostClock(clock),
        max_seqs=max_seqs,
        max_model_len=max_model_len,
        temperature=temperature,
        workspace=workspace,
        by_table=kernels == "paged",
    )


def _interprets() -> bool:
    """Whether Triton is there and runs its kernels in its interpreter."""
    try:
        import triton
    except ModuleNotFoundError:
        return False
    return bool(triton.knobs.runtime.interpret)
