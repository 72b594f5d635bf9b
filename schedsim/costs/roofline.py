"""`roofline`: step time from the peak figures of a GPU and the shape of a model."""

import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from schedsim.costs.base import PartsAhead, decode_contexts
from schedsim.costs.gpus import GPUSpec
from schedsim.costs.models import ModelSpec
from schedsim.errors import ConfigError
from schedsim.scheduler.batch import BatchShape


@dataclass(frozen=True, slots=True)
class RooflineAssumptions:
    """What the peak figures do not say; guesses that a measurement on the device replaces.

    `compute_efficiency` and `bandwidth_efficiency` are the shares of peak arithmetic and memory
    bandwidth that good kernels reach. `overhead_ms` is launch and host time of an iteration that
    does not overlap with the GPU's work, `request_overhead_ms` the same for each request in it.
    `link_latency_us` is paid by each all-reduce, beside its bytes. Attention has efficiencies of
    its own: `attention_efficiency` of its arithmetic, `kv_efficiency` of its reading of keys and
    values (None: as everything else). Moved blocks are read and written at `copy_gb_per_s`, both
    counted (None: at the bandwidth).
    """

    compute_efficiency: float = 0.7
    bandwidth_efficiency: float = 0.8
    overhead_ms: float = 1.0
    request_overhead_ms: float = 0.005
    link_latency_us: float = 10.0
    attention_efficiency: float | None = None
    kv_efficiency: float | None = None
    copy_gb_per_s: float | None = None

    def __post_init__(self) -> None:
        for name in (
            "compute_efficiency", "bandwidth_efficiency", "attention_efficiency", "kv_efficiency",
        ):  # fmt: skip
            value = getattr(self, name)
            if value is not None and not 0.0 < value <= 1.0:
                raise ConfigError(f"roofline: {name}={value} is not above 0 and up to 1")
        if self.copy_gb_per_s is not None and not 0.0 < self.copy_gb_per_s < math.inf:
            raise ConfigError(
                f"roofline: copy_gb_per_s={self.copy_gb_per_s} is not above 0 and finite"
            )
        for name in ("overhead_ms", "request_overhead_ms", "link_latency_us"):
            value = getattr(self, name)
            if not 0.0 <= value < math.inf:
                raise ConfigError(f"roofline: {name}={value} is negative or not finite")


@dataclass(frozen=True, slots=True)
class RooflineCost:
    """The larger of arithmetic time and memory time, for each part of an iteration, added up.

    The parts, with everything but the overheads divided over the `tensor_parallel` GPUs:

    - layers: 2 operations per parameter and token against one reading of all their weights;
    - output projection, if a token is sampled: the same for its matrix and the sampled tokens;
    - attention of prefills: 4·heads·head_dim operations in every layer per unit of
      Σ chunk·(context + chunk/2) against the keys and values of contexts and chunks;
    - attention of decodes: the same operations per token of context against its keys and values;
    - with several GPUs two ring all-reduces of the activations a layer: bytes over the link, and a
      latency each;
    - swaps: the bytes of each KV block of `block_size` tokens over the link to the host;
    - moves: the bytes of each block read and written in the GPU's memory.

    Padding of a static batch costs what decodes cost. Sources: Williams, Waterman and Patterson,
    "Roofline", CACM 2009, for the bound; Pope et al., "Efficiently Scaling Transformer Inference",
    MLSys 2023, for the counts. docs/step-time.md derives them and says how far off they are.

    Raises:
        ConfigError: the heads cannot be split over `tensor_parallel` GPUs.
    """

    model: ModelSpec
    gpu: GPUSpec
    tensor_parallel: int = 1
    assumptions: RooflineAssumptions = field(default_factory=RooflineAssumptions)
    block_size: int = 16
    # Seconds, each the coefficient of one count of the batch.
    _iteration: float = field(init=False, repr=False)
    _request: float = field(init=False, repr=False)
    _token: float = field(init=False, repr=False)
    _layer_weights: float = field(init=False, repr=False)
    _sampled: float = field(init=False, repr=False)
    _head_weights: float = field(init=False, repr=False)
    _attention: float = field(init=False, repr=False)
    _kv_token: float = field(init=False, repr=False)
    _link_token: float = field(init=False, repr=False)
    _swap_block: float = field(init=False, repr=False)
    _copy_block: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        model, gpu, degree, assumed = self.model, self.gpu, self.tensor_parallel, self.assumptions
        kv_bytes = model.kv_bytes_per_token_on_gpu(degree)
        flops = degree * (gpu.bf16_tflops * 1e12 * assumed.compute_efficiency)
        bandwidth = gpu.memory_gb_per_s * 1e9 * assumed.bandwidth_efficiency
        attention_flops, kv_bandwidth, copy_bandwidth = flops, bandwidth, bandwidth
        if assumed.attention_efficiency is not None:
            attention_flops = degree * (gpu.bf16_tflops * 1e12 * assumed.attention_efficiency)
        if assumed.kv_efficiency is not None:
            kv_bandwidth = gpu.memory_gb_per_s * 1e9 * assumed.kv_efficiency
        if assumed.copy_gb_per_s is not None:
            copy_bandwidth = assumed.copy_gb_per_s * 1e9
        layers = model.layers * model.layer_parameters
        all_reduces = 2 * model.layers if degree > 1 else 0
        # A ring all-reduce sends each byte 2·(n - 1)/n times over every GPU's link.
        message = model.hidden * model.bytes_per_value * 2 * (degree - 1) / degree
        latency = all_reduces * assumed.link_latency_us * 1e-6
        self._set("_iteration", assumed.overhead_ms * 1e-3 + latency)
        self._set("_request", assumed.request_overhead_ms * 1e-3)
        self._set("_token", 2 * layers / flops)
        self._set("_layer_weights", layers * model.bytes_per_value / (degree * bandwidth))
        self._set("_sampled", 2 * model.head_parameters / flops)
        head_bytes = model.head_parameters * model.bytes_per_value
        self._set("_head_weights", head_bytes / (degree * bandwidth))
        self._set("_attention", 4 * model.heads * model.head_dim * model.layers / attention_flops)
        self._set("_kv_token", kv_bytes / kv_bandwidth)
        self._set("_swap_block", kv_bytes * self.block_size / (gpu.host_gb_per_s * 1e9))
        self._set("_copy_block", 2 * kv_bytes * self.block_size / copy_bandwidth)
        self._set("_link_token", all_reduces * message / (gpu.link_gb_per_s * 1e9))

    def seconds(self, shape: BatchShape) -> float:
        """Seconds of an iteration."""
        decodes = shape.decode_requests + shape.padding_requests
        tokens = shape.prefill_tokens + decodes
        part = self._token * tokens
        weights = self._layer_weights
        time = (
            self._iteration
            + self._request * (shape.prefill_requests + decodes)
            + self._link_token * tokens
            + (part if part > weights else weights)
        )
        if shape.sampled:
            part = self._sampled * shape.sampled
            weights = self._head_weights
            time += part if part > weights else weights
        if shape.prefill_tokens:
            part = self._attention * shape.prefill_attention
            reads = self._kv_token * (shape.prefill_context + shape.prefill_tokens)
            time += part if part > reads else reads
        if decodes:
            context = shape.decode_context + shape.padding_context
            part = self._attention * context
            reads = self._kv_token * context
            time += part if part > reads else reads
        if shape.swapped_blocks:
            time += self._swap_block * shape.swapped_blocks
        if shape.copied_blocks:
            time += self._copy_block * shape.copied_blocks
        return time

    def parts_ahead(self, shape: BatchShape, iterations: int) -> PartsAhead:
        """All of it on the device; the attention of the decodes is the last term of `seconds`."""
        fixed = self.seconds(replace(shape, decode_context=0, padding_context=0))
        context = decode_contexts(shape, iterations)
        attention = np.maximum(self._attention * context, self._kv_token * context)
        return PartsAhead(0.0, fixed + attention, 0.0)

    def describe(self) -> dict[str, Any]:
        """Model, GPU and every assumption."""
        return {
            "name": "roofline",
            "model": self.model.model_dump(),
            "gpu": self.gpu.model_dump(),
            "tensor_parallel": self.tensor_parallel,
            "block_size": self.block_size,
            **asdict(self.assumptions),
        }

    def _set(self, name: str, value: float) -> None:
        object.__setattr__(self, name, value)
