"""`RunSettings`: everything that a run depends on beside the trace, checked once, at the edge."""

from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import ErrorDetails

from schedsim.errors import ConfigError
from schedsim.specs import unknown_name

MAX_BLOCKS = 2**24
"""More KV blocks than machines have; each one costs the simulator some bytes of memory."""

_Settings = TypeVar("_Settings", bound=BaseModel)

SIMULATED_ONLY = frozenset({"step_time", "step_noise", "tensor_parallel"})
"""The `RunSettings` that an execution has no use for."""

_LIMITS = {"ge": "at least", "gt": "above", "le": "at most", "lt": "below"}


class RunSettings(BaseModel):
    """The settings of one run, as they stand in its manifest.

    Strings are spec strings (`schedsim.specs`). None lets the part that needs the value choose:
    `blocks` from the memory that the model leaves on the GPU, `token_budget`, `memory` and
    `decision_lag` by the policy, `max_model_len` by the model and the cache, `max_output` by the
    trace's column or the context, `step_time` the packaged calibration of the model on the GPU, or
    the roofline where there is none, `estimator` (what policies may ask for step times) the step
    time itself, or the roofline where that is a record, `memory_predictor` (what memory is reserved
    by) the `predictor`. `step_noise` scatters a fitted step time as repeats of one size did.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    policy: str = "vllm"
    model: str = "llama-3-8b"
    gpu: str = "h100"
    tensor_parallel: int = Field(1, ge=1, le=1024)
    step_time: str | None = None
    step_noise: bool = False
    estimator: str | None = None
    memory: str | None = None
    blocks: int | None = Field(None, ge=1, le=MAX_BLOCKS)
    block_size: int = Field(16, ge=1, le=65536)
    max_seqs: int = Field(256, ge=1)
    token_budget: int | None = Field(None, ge=1)
    max_model_len: int | None = Field(None, ge=2, lt=2**31)
    decision_lag: int | None = Field(None, ge=0, le=1)
    max_output: str | None = None
    predictor: str = "none"
    memory_predictor: str | None = None
    arrivals: str | None = None
    concurrency: int | None = Field(None, ge=1)
    rate_scale: float = Field(1.0, gt=0, allow_inf_nan=False)
    token_scale: float = Field(1.0, gt=0, allow_inf_nan=False)
    limit: int | None = Field(None, ge=1)
    seed: int = Field(0, ge=0)
    slo_ttft: float | None = Field(None, gt=0, allow_inf_nan=False)
    slo_tpot: float | None = Field(None, gt=0, allow_inf_nan=False)


class ExecutionSettings(BaseModel):
    """What an engine on a device depends on beside the `RunSettings`.

    `weights` is a directory in Hugging Face's layout, None draws random ones from the run's seed.
    None for `device` takes the GPU if there is one, for `dtype` and `attention` what suits the
    device, for `threads` what torch chooses on this CPU. `temperature` 0 samples greedily.
    `kernels` says how attention finds keys and values: None as fast as memory lets it, `paged` by a
    block table even where they lie in one piece.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    weights: str | None = None
    device: str | None = None
    dtype: str | None = None
    attention: str | None = None
    kernels: Literal["contiguous", "paged"] | None = None
    temperature: float = Field(0.0, ge=0, le=100, allow_inf_nan=False)
    threads: int | None = Field(None, ge=1, le=4096)


def make_settings(**values: Any) -> RunSettings:
    """`RunSettings` from keyword arguments.

    Raises:
        ConfigError: an unknown setting or a value out of range; names all of them.
    """
    return _made(RunSettings, values)


def make_execution_settings(**values: Any) -> ExecutionSettings:
    """`ExecutionSettings` from keyword arguments.

    Raises:
        ConfigError: as `make_settings`.
    """
    return _made(ExecutionSettings, values)


def check_execution_keywords(values: dict[str, Any]) -> None:
    """Refuse among the keyword arguments of an execution what is none of its settings.

    Raises:
        ConfigError: it is a simulation's, or nobody's; names the setting.
    """
    for name, value in values.items():
        if name in SIMULATED_ONLY:
            raise ConfigError(
                f"{name}={value!r} is for simulations: an execution measures its time, on one "
                "device; leave it out"
            )
        if name not in RunSettings.model_fields:
            known = {*RunSettings.model_fields, *ExecutionSettings.model_fields} - SIMULATED_ONLY
            raise unknown_name("setting", name, known)


def choose_model(model: str | None, execution: ExecutionSettings) -> str:
    """The model of an execution: the one named, or that of the weights, or `tiny`.

    Raises:
        ConfigError: both are given.
    """
    if execution.weights is None:
        return model or "tiny"
    if model is not None:
        raise ConfigError(
            f"--model {model} and --weights {execution.weights}: the weights bring their own "
            "config.json; leave --model out"
        )
    return execution.weights


def _made(kind: type[_Settings], values: dict[str, Any]) -> _Settings:
    try:
        return kind(**values)
    except ValidationError as error:
        told = (_told(problem, kind) for problem in error.errors())
        raise ConfigError("; ".join(told)) from None


def _told(problem: ErrorDetails, kind: type[BaseModel]) -> str:
    """One problem in our words, where pydantic's are about inputs and not about settings."""
    name, value = str(problem["loc"][0]), problem["input"]
    if problem["type"] == "extra_forbidden":
        return str(unknown_name("setting", name, kind.model_fields))
    for bound, words in _LIMITS.items():
        if bound in problem.get("ctx", {}):
            return f"{name}={value!r} must be {words} {problem['ctx'][bound]}"
    return f"{name}={value!r}: {problem['msg']}"
