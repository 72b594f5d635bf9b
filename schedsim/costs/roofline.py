"""`roofline`: step time from the peak figures of a GPU and the shape of a model."""

from dataclasses import dataclass, field
from typing import Any

from schedsim.costs.gpus import GPUSpec
from schedsim.costs.models import ModelSpec
from schedsim.errors import ConfigError
from schedsim.scheduler.batch import BatchShape


@dataclass(frozen=True, slots=True)
class RooflineCost:
    """The larger of arithmetic and memory time, for the linear layers and for attention.

    Source of the bound: Williams, Waterman, Patterson, "Roofline", CACM 2009. The linear layers
    read all their weights once an iteration and do two operations a parameter and token; the
    output projection counts for sampled tokens only. Attention is bounded apart for prefill
    (4·heads·head_dim operations per pair of query and key, in every layer) and decode (the keys
    and values of its context are read once). With several GPUs each does its share and two
    all-reduces a layer join them. `compute_efficiency` and `bandwidth_efficiency` are the shares
    of the peaks that good kernels reach; `overhead_ms` is launch and host time of an iteration and
    `request_overhead_ms` host time for each request in it. All of these are guesses that a
    calibration on the real device replaces.
    """

    model: ModelSpec
    gpu: GPUSpec
    tensor_parallel: int = 1
    compute_efficiency: float = 0.7
    bandwidth_efficiency: float = 0.8
    overhead_ms: float = 1.0
    request_overhead_ms: float = 0.005
    link_latency_us: float = 10.0
    _per_token: float = field(init=False, repr=False)
    _per_sampled: float = field(init=False, repr=False)
    _weights: float = field(init=False, repr=False)
    _per_pair: float = field(init=False, repr=False)
    _per_kv_token: float = field(init=False, repr=False)
    _link_per_token: float = field(init=False, repr=False)
    _fixed: float = field(init=False, repr=False)
    _per_request: float = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._check()
        model, gpu, ways = self.model, self.gpu, self.tensor_parallel
        flops = ways * gpu.bf16_tflops * 1e12 * self.compute_efficiency
        bandwidth = ways * gpu.memory_gb_per_s * 1e9 * self.bandwidth_efficiency
        layers = model.layers * model.layer_parameters
        read = (layers + model.head_parameters) * model.bytes_per_value
        message = model.hidden * model.bytes_per_value * 2 * (ways - 1) / ways
        self._set("_per_token", 2.0 * layers / flops)
        self._set("_per_sampled", 2.0 * model.head_parameters / flops)
        self._set("_weights", read / bandwidth)
        self._set("_per_pair", 4.0 * model.heads * model.head_dim * model.layers / flops)
        self._set("_per_kv_token", model.kv_bytes_per_token / bandwidth)
        self._set("_link_per_token", 2 * model.layers * message / (gpu.link_gb_per_s * 1e9))
        links = 2 * model.layers * self.link_latency_us * 1e-6 if ways > 1 else 0.0
        self._set("_fixed", self.overhead_ms * 1e-3 + links)
        self._set("_per_request", self.request_overhead_ms * 1e-3)

    def seconds(self, shape: BatchShape) -> float:
        """Seconds of an iteration."""
        decodes = shape.decode_requests + shape.padding_requests
        tokens = shape.prefill_tokens + decodes
        linear = self._per_token * tokens + self._per_sampled * shape.sampled
        if linear < self._weights:
            linear = self._weights
        time = self._fixed + self._per_request * (shape.prefill_requests + decodes) + linear
        if shape.prefill_tokens:
            pairs = self._per_pair * shape.prefill_attention
            reads = self._per_kv_token * (shape.prefill_context + shape.prefill_tokens)
            time += pairs if pairs > reads else reads
        if decodes:
            context = shape.decode_context + shape.padding_context
            pairs = self._per_pair * context
            reads = self._per_kv_token * context
            time += pairs if pairs > reads else reads
        return time + self._link_per_token * tokens

    def describe(self) -> dict[str, Any]:
        """Model, GPU and every assumption."""
        return {
            "name": "roofline",
            "model": self.model.model_dump(),
            "gpu": self.gpu.model_dump(),
            "tensor_parallel": self.tensor_parallel,
            "compute_efficiency": self.compute_efficiency,
            "bandwidth_efficiency": self.bandwidth_efficiency,
            "overhead_ms": self.overhead_ms,
            "request_overhead_ms": self.request_overhead_ms,
            "link_latency_us": self.link_latency_us,
        }

    def _set(self, name: str, value: float) -> None:
        object.__setattr__(self, name, value)

    def _check(self) -> None:
        for name in ("compute_efficiency", "bandwidth_efficiency"):
            if not 0.0 < getattr(self, name) <= 1.0:
                raise ConfigError(f"roofline: {name}={getattr(self, name)} is not in (0, 1]")
        for name in ("overhead_ms", "request_overhead_ms", "link_latency_us"):
            if not 0.0 <= getattr(self, name) < 1e6:
                raise ConfigError(f"roofline: {name}={getattr(self, name)} is negative or too big")
        if self.tensor_parallel < 1 or self.model.heads % self.tensor_parallel:
            raise ConfigError(
                f"--tensor-parallel {self.tensor_parallel} does not divide the "
                f"{self.model.heads} heads of {self.model.name}"
            )
