"""`ModelSpec`: the shape of a decoder model, by name or from a Hugging Face config.json."""

import json
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schedsim.errors import ConfigError
from schedsim.specs import unknown_name

Family = Literal["llama", "mistral", "qwen2", "qwen3", "opt"]


class ModelSpec(BaseModel):
    """What of a decoder model decides its memory and its arithmetic.

    `opt` has two MLP matrices, biases everywhere, learned positions and layer norms with bias; the
    others are gated with RMS norms; `qwen2` has biases on Q, K and V, `qwen3` norms on Q and K.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    family: Family
    layers: int = Field(ge=1)
    hidden: int = Field(ge=1)
    heads: int = Field(ge=1)
    kv_heads: int = Field(ge=1)
    head_dim: int = Field(ge=1)
    intermediate: int = Field(ge=1)
    vocab: int = Field(ge=1)
    tied_embeddings: bool = False
    max_model_len: int = Field(ge=2)
    bytes_per_value: int = Field(2, ge=1)

    @property
    def layer_parameters(self) -> int:
        """Parameters of one decoder layer."""
        query, key_value = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = 2 * self.hidden * query + 2 * self.hidden * key_value
        if self.family == "opt":
            mlp = 2 * self.hidden * self.intermediate
            biases = query + 2 * key_value + self.hidden + self.intermediate + self.hidden
            return attention + mlp + biases + 4 * self.hidden
        mlp = 3 * self.hidden * self.intermediate
        biases = query + 2 * key_value if self.family == "qwen2" else 0
        head_norms = 2 * self.head_dim if self.family == "qwen3" else 0
        return attention + mlp + biases + head_norms + 2 * self.hidden

    @property
    def head_parameters(self) -> int:
        """Parameters of the output projection (shared with the embedding if tied)."""
        return self.vocab * self.hidden

    @property
    def num_parameters(self) -> int:
        """All parameters."""
        embeddings = self.head_parameters * (1 if self.tied_embeddings else 2)
        final_norm = self.hidden
        if self.family == "opt":
            embeddings += (self.max_model_len + 2) * self.hidden
            final_norm *= 2
        return self.layers * self.layer_parameters + embeddings + final_norm

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights."""
        return self.num_parameters * self.bytes_per_value

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of keys and values of one token in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.bytes_per_value


def load_model(name: str) -> ModelSpec:
    """The model called `name`, or that of a Hugging Face config.json or of the directory with it.

    Raises:
        ConfigError: an unknown name; a file that is not there, not JSON, of an unknown model type
            or without a field.
    """
    known = _shipped()
    if name in known:
        return ModelSpec(name=name, **known[name])
    path = Path(name)
    if path.is_dir():
        path = path / "config.json"
    if path.suffix == ".json" or path.is_file():
        return _from_hugging_face(path)
    error = unknown_name("model", name, known)
    raise ConfigError(f"{error} Or give the path of a Hugging Face config.json.")


def list_models() -> list[tuple[str, str]]:
    """Every shipped model with a line that describes it."""
    rows = []
    for name in _shipped():
        model = load_model(name)
        rows.append(
            (
                name,
                f"{model.num_parameters / 1e9:.2f} G parameters, {model.layers} layers, "
                f"{model.heads} query and {model.kv_heads} KV heads of {model.head_dim}, "
                f"context {model.max_model_len}, {model.kv_bytes_per_token} KV bytes a token",
            )
        )
    return rows


def _shipped() -> dict[str, dict[str, Any]]:
    text = (resources.files("schedsim.costs") / "models.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)


# Fields of a Hugging Face config; OPT names some otherwise.
_FIELDS = {
    "layers": ("num_hidden_layers",),
    "hidden": ("hidden_size",),
    "heads": ("num_attention_heads",),
    "intermediate": ("intermediate_size", "ffn_dim"),
    "vocab": ("vocab_size",),
    "max_model_len": ("max_position_embeddings",),
}
_BYTES = {"bfloat16": 2, "float16": 2, "float32": 4}


def _from_hugging_face(path: Path) -> ModelSpec:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--model {path}: cannot read it: {error}") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"--model {path}: not JSON: {error}") from None
    if not isinstance(config, dict):
        raise ConfigError(f"--model {path}: not a config.json of Hugging Face, no object inside")
    families = Family.__args__  # type: ignore[attr-defined]
    family = config.get("model_type")
    if family not in families:
        raise ConfigError(
            f"{path}: model_type {family!r} is not supported; known: {', '.join(families)}"
        )
    values: dict[str, Any] = {}
    for field, names in _FIELDS.items():
        given = next((config[name] for name in names if name in config), None)
        if given is None:
            raise ConfigError(f"{path}: field {' or '.join(names)!r} is missing")
        values[field] = given
    values["kv_heads"] = config.get("num_key_value_heads") or values["heads"]
    values["head_dim"] = config.get("head_dim") or values["hidden"] // max(1, values["heads"])
    values["tied_embeddings"] = config.get("tie_word_embeddings", family == "opt")
    dtype = config.get("torch_dtype") or config.get("dtype") or "bfloat16"
    values["bytes_per_value"] = _BYTES.get(str(dtype), 2)
    try:
        return ModelSpec(name=str(path), family=family, **values)
    except ValidationError as error:
        problem = error.errors()[0]
        raise ConfigError(
            f"{path}: {problem['loc'][0]} = {problem['input']!r}: {problem['msg']}"
        ) from None
