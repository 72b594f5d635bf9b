"""Step-time models, and the models and GPUs they know.

A new step-time model is a file here and an entry in `make_step_cost`.
"""

from schedsim.costs.base import StepCost
from schedsim.costs.capacity import KVCapacity, kv_blocks
from schedsim.costs.gpus import GPUSpec, list_gpus, load_gpu
from schedsim.costs.linear import LinearCost, load_linear
from schedsim.costs.models import ModelSpec, list_models, load_model
from schedsim.costs.roofline import RooflineCost
from schedsim.errors import ConfigError
from schedsim.specs import build_from_spec, parse_spec, unknown_name

STEP_COSTS = ("roofline", "linear")


def make_step_cost(text: str, model: ModelSpec, gpu: GPUSpec, tensor_parallel: int = 1) -> StepCost:
    """Build the step-time model of the spec `text`: `roofline` with parameters or `linear:FILE`.

    Raises:
        ConfigError: an unknown name or parameter, or a file that cannot be read.
    """
    spec = parse_spec(text)
    if spec.name == "linear":
        if not spec.value or spec.parameters:
            raise ConfigError(f"--step-time {text!r}: write linear:FILE, a TOML file")
        return load_linear(spec.value)
    if spec.name != "roofline":
        raise unknown_name("step-time model", spec.name, STEP_COSTS)

    def roofline(
        compute_efficiency: float = 0.7,
        bandwidth_efficiency: float = 0.8,
        overhead_ms: float = 1.0,
        request_overhead_ms: float = 0.005,
        link_latency_us: float = 10.0,
    ) -> RooflineCost:
        return RooflineCost(
            model,
            gpu,
            tensor_parallel,
            compute_efficiency,
            bandwidth_efficiency,
            overhead_ms,
            request_overhead_ms,
            link_latency_us,
        )

    return build_from_spec("step-time model", roofline, spec)


__all__ = [
    "STEP_COSTS",
    "GPUSpec",
    "KVCapacity",
    "LinearCost",
    "ModelSpec",
    "RooflineCost",
    "StepCost",
    "kv_blocks",
    "list_gpus",
    "list_models",
    "load_gpu",
    "load_linear",
    "load_model",
    "make_step_cost",
]
