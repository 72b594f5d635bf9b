"""Step-time models, and the models and GPUs they know.

A new step-time model is a file here that holds a `StepCost`, and an entry in `STEP_COSTS`.
"""

from collections.abc import Callable

from schedsim.costs.base import PartedCost, StepCost, StepParts
from schedsim.costs.capacity import KVCapacity, kv_blocks
from schedsim.costs.fitted import FittedCost, load_fitted
from schedsim.costs.gpus import GPUSpec, list_gpus, load_gpu
from schedsim.costs.linear import LinearCost, load_linear
from schedsim.costs.models import ModelSpec, list_models, load_model
from schedsim.costs.recorded import RecordedTimes, load_recorded
from schedsim.costs.roofline import RooflineAssumptions, RooflineCost
from schedsim.costs.tables import TableOptions, TablesCost, load_tables, parse_tables
from schedsim.errors import ConfigError
from schedsim.specs import build_from_spec, parse_spec, unknown_name

RECORDED = "recorded"
"""The source of time that is no model: it replays the moments of another run."""


def make_step_cost(
    text: str,
    model: ModelSpec | None = None,
    gpu: GPUSpec | None = None,
    tensor_parallel: int = 1,
    block_size: int = 16,
) -> StepCost:
    """Build the step-time model of the spec `text`: `roofline`, `roofline,key=value…`,
    `linear:FILE`, `fitted:FILE`, `tables:DIR` or `tables:DIR,key=value…`.

    `roofline` needs `model` and `gpu` and charges swaps by blocks of `block_size` tokens, `tables`
    needs `model`; the others use none of these.

    Raises:
        ConfigError: an unknown name or parameter, a model or GPU that is needed and not given, or
            a file that cannot be read.
    """
    name = text.replace(",", ":").partition(":")[0].strip()
    if name == RECORDED:
        raise ConfigError(
            f"{text}: a record is no step-time model, it tells the time of the batches that ran "
            "and of no other; give roofline, linear:FILE, tables:DIR or fitted:FILE "
            "(`schedsim calibrate` fits one to a run)"
        )
    if name not in STEP_COSTS:
        raise unknown_name("step-time model", name, [*STEP_COSTS, RECORDED])
    return STEP_COSTS[name](text, model, gpu, tensor_parallel, block_size)


def _roofline(
    text: str, model: ModelSpec | None, gpu: GPUSpec | None, tensor_parallel: int, block_size: int
) -> StepCost:
    if model is None or gpu is None:
        missing = "--model" if model is None else "--gpu"
        raise ConfigError(f"--step-time {text} needs {missing}")
    assumptions = build_from_spec("step-time model", RooflineAssumptions, parse_spec(text))
    return RooflineCost(model, gpu, tensor_parallel, assumptions, block_size)


def _linear(
    text: str, model: ModelSpec | None, gpu: GPUSpec | None, tensor_parallel: int, block_size: int
) -> StepCost:
    return load_linear(_path(text, "linear:FILE, a TOML file of coefficients"))


def _fitted(
    text: str, model: ModelSpec | None, gpu: GPUSpec | None, tensor_parallel: int, block_size: int
) -> StepCost:
    return load_fitted(_path(text, "fitted:FILE, a file that `schedsim calibrate` wrote"))


def _tables(
    text: str, model: ModelSpec | None, gpu: GPUSpec | None, tensor_parallel: int, block_size: int
) -> StepCost:
    if model is None:
        raise ConfigError(f"--step-time {text} needs --model")
    return load_tables(parse_tables(text), model, tensor_parallel)


def _path(text: str, form: str) -> str:
    """All that stands behind the colon, commas and equals signs included."""
    path = text.partition(":")[2].strip()
    if not path:
        raise ConfigError(f"--step-time {text}: write {form}")
    return path


def make_step_time(
    text: str,
    model: ModelSpec | None = None,
    gpu: GPUSpec | None = None,
    tensor_parallel: int = 1,
    block_size: int = 16,
) -> StepCost | RecordedTimes:
    """What tells the time of a run: a step-time model, or `recorded:RUN_DIR`, another run's clock.

    Raises:
        ConfigError: as `make_step_cost` and `load_recorded`.
    """
    name, _, directory = text.partition(":")
    if name.strip() != RECORDED:
        return make_step_cost(text, model, gpu, tensor_parallel, block_size)
    if not directory.strip():
        raise ConfigError(f"--step-time {text}: write recorded:RUN_DIR, the results of a run")
    return load_recorded(directory.strip())


STEP_COSTS: dict[str, Callable[[str, ModelSpec | None, GPUSpec | None, int, int], StepCost]] = {
    "fitted": _fitted,
    "linear": _linear,
    "roofline": _roofline,
    "tables": _tables,
}
"""The step-time models by name: each builds one from its spec, the model, the GPU, the degree of
tensor parallelism and the tokens of a KV block."""


__all__ = [
    "STEP_COSTS",
    "FittedCost",
    "GPUSpec",
    "KVCapacity",
    "LinearCost",
    "ModelSpec",
    "PartedCost",
    "RecordedTimes",
    "RooflineAssumptions",
    "RooflineCost",
    "StepCost",
    "StepParts",
    "TableOptions",
    "TablesCost",
    "kv_blocks",
    "list_gpus",
    "list_models",
    "load_fitted",
    "load_gpu",
    "load_linear",
    "load_model",
    "load_recorded",
    "load_tables",
    "make_step_cost",
    "make_step_time",
    "parse_tables",
]
