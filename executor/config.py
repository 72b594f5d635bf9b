"""`ModelConfig`: what the executor must know of a decoder to compute it, beyond its shape.

No torch here: the shape and the rotary positions are data.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from schedsim.costs.models import ModelSpec, list_models, load_model
from schedsim.errors import ConfigError

ROPE_KINDS = ("default", "linear", "dynamic", "llama3", "yarn")
"""The values of `rope_type` that can be computed."""

_DEFAULT_THETA = 10_000.0  # transformers' value where a config.json names none
_DEFAULT_NORM_EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class RopeConfig:
    """How positions become rotation angles; the fields are those of Hugging Face's `rope_scaling`.

    `kind` is one of `ROPE_KINDS`; a field that its kind does not name is never read. `trained_len`
    is the number of positions before scaling; `max_model_len` that of the model.
    """

    kind: str = "default"
    theta: float = _DEFAULT_THETA
    factor: float = 1.0
    max_model_len: int = 0
    trained_len: int = 0
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    attention_factor: float = 1.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    truncate: bool = True


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """A decoder of the Llama and Qwen families: RMS norms, rotary positions, SwiGLU.

    `shape` is the one that the step-time models use.
    """

    shape: ModelSpec
    rope: RopeConfig = field(default_factory=RopeConfig)
    norm_epsilon: float = _DEFAULT_NORM_EPSILON


def load_config(name: str | Path) -> ModelConfig:
    """The config of a named model, of a Hugging Face config.json or of the directory with it.

    A named model has its shape only: its rotary positions are unscaled, its epsilon 1e-6. That is
    enough for random weights.

    Raises:
        ConfigError: an unknown name; a config.json that cannot be read, or that asks for something
            that the decoder does not compute; names the file, the field and the value.
    """
    shape = load_model(str(name))
    if str(name) in dict(list_models()):
        if shape.norm_bias or not shape.gated_mlp or shape.position_embeddings:
            raise ConfigError(
                f"--model {name}: the executor runs the Llama and Qwen families; OPT's layer "
                "norms and learned positions can be simulated only"
            )
        return ModelConfig(shape, RopeConfig(max_model_len=shape.max_model_len))
    path = Path(name) / "config.json" if Path(name).is_dir() else Path(name)
    values = json.loads(path.read_text(encoding="utf-8"))  # `load_model` has read it without fault
    _check_supported(values, shape, path)
    return ModelConfig(
        shape,
        _rope(values, shape, path),
        _number(values, path, "rms_norm_eps", _DEFAULT_NORM_EPSILON),
    )


def tiny(**changes: Any) -> ModelConfig:
    """The packaged model `tiny` with fields of its shape changed: for tests, on a CPU.

    Raises:
        ValidationError: `changes` names a field that `ModelSpec` has not, or a value out of range.
    """
    shape = ModelSpec(**{**load_model("tiny").model_dump(), **changes})
    return ModelConfig(shape, RopeConfig(max_model_len=shape.max_model_len))


def _check_supported(values: Mapping[str, Any], shape: ModelSpec, path: Path) -> None:
    kind = values["model_type"]
    if kind == "opt":
        raise ConfigError(f"{path}: model_type 'opt' can be simulated, but the executor has none")
    activation = values.get("hidden_act", "silu")
    if activation != "silu":
        raise ConfigError(f"{path}: hidden_act {activation!r} is not supported; known: silu")
    # As in transformers: Mistral slides unless told not to, the Qwen models only if told to.
    slides = kind == "mistral" or values.get("use_sliding_window", False)
    window = values.get("sliding_window", 4096)
    if slides and window is not None and window < shape.max_model_len:
        raise ConfigError(
            f"{path}: sliding_window = {window!r} is not supported; set it to null to run the "
            "model with full attention"
        )
    for layer_type in values.get("layer_types") or ():
        if layer_type != "full_attention":
            raise ConfigError(
                f"{path}: layer_types names {layer_type!r}; only 'full_attention' is supported"
            )
    if shape.head_dim % 2:
        raise ConfigError(f"{path}: head_dim {shape.head_dim} is odd; rotary positions need pairs")


def _rope(values: Mapping[str, Any], shape: ModelSpec, path: Path) -> RopeConfig:
    """The rotary positions, by the rules of transformers 5: old and new spellings alike."""
    given = values.get("rope_scaling") or values.get("rope_parameters") or {}
    if not isinstance(given, dict) or any(isinstance(value, dict) for value in given.values()):
        raise ConfigError(
            f"{path}: rope_parameters = {given!r} is not one set of parameters; positions that "
            "differ by layer are not supported"
        )
    kind = given.get("rope_type", given.get("type", "default"))
    if kind not in ROPE_KINDS:
        raise ConfigError(
            f"{path}: rope_type {kind!r} is not supported; known: {', '.join(ROPE_KINDS)}"
        )
    partial = given.get("partial_rotary_factor", values.get("partial_rotary_factor"))
    if partial not in (None, 1, 1.0):
        raise ConfigError(f"{path}: partial_rotary_factor = {partial!r} is not supported; known: 1")
    theta = _number(values, path, "rope_theta", _DEFAULT_THETA)
    trained_len = _number(given, path, "original_max_position_embeddings", shape.max_model_len)
    trained_len = _number(values, path, "original_max_position_embeddings", trained_len)
    scaled = kind != "default"
    ratio = shape.max_model_len / trained_len if kind == "yarn" else None
    rope = RopeConfig(
        kind=kind,
        theta=_number(given, path, "rope_theta", theta),
        factor=_number(given, path, "factor", ratio) if scaled else 1.0,
        max_model_len=shape.max_model_len,
        trained_len=int(trained_len),
    )
    if kind == "llama3":
        return _llama3(given, rope, path)
    if kind == "yarn":
        return _yarn(given, rope, path)
    return rope


def _llama3(given: Mapping[str, Any], rope: RopeConfig, path: Path) -> RopeConfig:
    low = _number(given, path, "low_freq_factor")
    high = _number(given, path, "high_freq_factor")
    if high <= low:
        raise ConfigError(
            f"{path}: high_freq_factor {high} of rope_scaling is not above low_freq_factor {low}"
        )
    return replace(rope, low_freq_factor=low, high_freq_factor=high)


def _yarn(given: Mapping[str, Any], rope: RopeConfig, path: Path) -> RopeConfig:
    mscale, mscale_all_dim = given.get("mscale"), given.get("mscale_all_dim")
    inferred = _yarn_mscale(rope.factor, 1.0)
    if mscale and mscale_all_dim:
        mscale = _number(given, path, "mscale")
        mscale_all_dim = _number(given, path, "mscale_all_dim")
        inferred = _yarn_mscale(rope.factor, mscale) / _yarn_mscale(rope.factor, mscale_all_dim)
    truncate = given.get("truncate", True)
    if not isinstance(truncate, bool):
        raise ConfigError(f"{path}: truncate = {truncate!r} is neither true nor false")
    return replace(
        rope,
        attention_factor=_number(given, path, "attention_factor", inferred),
        beta_fast=_number(given, path, "beta_fast", 32.0),
        beta_slow=_number(given, path, "beta_slow", 1.0),
        truncate=truncate,
    )


def _yarn_mscale(factor: float, mscale: float) -> float:
    """The growth of attention scores with the context (YaRN, arXiv 2309.00071, section 3.4)."""
    return 1.0 if factor <= 1 else 0.1 * mscale * math.log(factor) + 1.0


def _number(
    values: Mapping[str, Any], path: Path, name: str, default: float | None = None
) -> float:
    """A positive number; null counts as missing, as in transformers."""
    value = values.get(name)
    value = default if value is None else value
    if value is None:
        raise ConfigError(f"{path}: field {name!r} is missing")
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ConfigError(f"{path}: {name} = {value!r} is not a number")
    if not (0 < value < math.inf):
        raise ConfigError(f"{path}: {name} = {value!r} is not a number above 0")
    return float(value)
