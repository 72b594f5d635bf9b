"""Reads the config.json of a Hugging Face model into the fields of a `ModelSpec`."""

import json
from pathlib import Path
from typing import Any

from schedsim.errors import ConfigError

MODEL_TYPES = ("llama", "mistral", "opt", "qwen2", "qwen3")
"""The values of `model_type` that can be read: dense decoders."""

BYTES_OF_DTYPE = {"bfloat16": 2, "float16": 2, "float32": 4}


def read_config(path: Path) -> dict[str, Any]:
    """The fields of a `ModelSpec`, all but its name.

    Where transformers has a default for a field that configs leave out, it is the one here; a
    sliding window is read as full attention.

    Raises:
        ConfigError: the file cannot be read, is not JSON, is of another model type, quantised or a
            mixture of experts, or a field is missing or wrong; names the file and the field.
    """
    config = _read_json(path)
    kind = config.get("model_type")
    if kind not in MODEL_TYPES:
        raise ConfigError(
            f"{path}: model_type {kind!r} is not supported; known: {', '.join(MODEL_TYPES)}"
        )
    for field in ("num_experts", "num_local_experts", "quantization_config"):
        if config.get(field):
            what = "quantised weights" if field == "quantization_config" else "mixtures of experts"
            raise ConfigError(
                f"{path}: {what} are not supported; give a config.json without {field!r} to take "
                "the model as dense and unquantised"
            )
    shape = _opt(config, path) if kind == "opt" else _llama_like(kind, config, path)
    if shape["heads"] % shape["kv_heads"]:
        raise ConfigError(
            f"{path}: num_attention_heads {shape['heads']} is not a multiple of "
            f"num_key_value_heads {shape['kv_heads']}"
        )
    return shape


def _opt(config: dict[str, Any], path: Path) -> dict[str, Any]:
    shape = _common(config, path)
    if config.get("word_embed_proj_dim", shape["hidden"]) != shape["hidden"]:
        raise ConfigError(
            f"{path}: word_embed_proj_dim = {config['word_embed_proj_dim']!r} differs from "
            f"hidden_size {shape['hidden']}; projected embeddings are not supported"
        )
    bias = _flag(config, path, "enable_bias", True)
    return shape | {
        "kv_heads": shape["heads"],
        "head_dim": _head_dim(config, path, shape),
        "intermediate": _count(config, path, "ffn_dim"),
        "tied_embeddings": _flag(config, path, "tie_word_embeddings", True),
        "gated_mlp": False,
        "qkv_bias": bias,
        "output_bias": bias,
        "mlp_bias": bias,
        "norm_bias": True,
        "position_embeddings": shape["max_model_len"] + 2,  # OPT's position ids start at 2
    }


def _llama_like(kind: str, config: dict[str, Any], path: Path) -> dict[str, Any]:
    shape = _common(config, path)
    # Only LlamaConfig takes a missing count for "as many as query heads".
    if kind == "llama" and config.get("num_key_value_heads") is None:
        kv_heads = shape["heads"]
    else:
        kv_heads = _count(config, path, "num_key_value_heads")
    if kind == "qwen3":
        head_dim = _count(config, path, "head_dim")
    else:
        head_dim = _head_dim(config, path, shape)
    takes_bias = kind in ("llama", "qwen3")
    bias = takes_bias and _flag(config, path, "attention_bias", False)
    return shape | {
        "kv_heads": kv_heads,
        "head_dim": head_dim,
        "intermediate": _count(config, path, "intermediate_size"),
        "tied_embeddings": _flag(config, path, "tie_word_embeddings", False),
        "qkv_bias": bias or kind == "qwen2",
        "output_bias": bias,
        "mlp_bias": kind == "llama" and _flag(config, path, "mlp_bias", False),
        "qk_norm": kind == "qwen3",
    }


def _common(config: dict[str, Any], path: Path) -> dict[str, Any]:
    return {
        "layers": _count(config, path, "num_hidden_layers"),
        "hidden": _count(config, path, "hidden_size"),
        "heads": _count(config, path, "num_attention_heads"),
        "vocab": _count(config, path, "vocab_size"),
        "max_model_len": _count(config, path, "max_position_embeddings", least=2),
        "bytes_per_value": _bytes_per_value(config, path),
    }


def _head_dim(config: dict[str, Any], path: Path, shape: dict[str, Any]) -> int:
    if config.get("head_dim") is not None:
        return _count(config, path, "head_dim")
    hidden, heads = int(shape["hidden"]), int(shape["heads"])
    if hidden % heads:
        raise ConfigError(
            f"{path}: field 'head_dim' is missing, and hidden_size {hidden} is not a multiple of "
            f"num_attention_heads {heads}"
        )
    return hidden // heads


def _count(config: dict[str, Any], path: Path, field: str, least: int = 1) -> int:
    value = config.get(field)
    if value is None:
        raise ConfigError(f"{path}: field {field!r} is missing")
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise ConfigError(f"{path}: {field} = {value!r} is not a whole number of at least {least}")
    return value


def _flag(config: dict[str, Any], path: Path, field: str, default: bool) -> bool:
    value = config.get(field, default)
    if not isinstance(value, bool):
        raise ConfigError(f"{path}: {field} = {value!r} is neither true nor false")
    return value


def _bytes_per_value(config: dict[str, Any], path: Path) -> int:
    # `dtype` in newer files, `torch_dtype` in older ones.
    dtype = config.get("dtype") or config.get("torch_dtype") or "bfloat16"
    if not isinstance(dtype, str) or dtype not in BYTES_OF_DTYPE:
        raise ConfigError(
            f"{path}: dtype {dtype!r} is not supported; known: {', '.join(BYTES_OF_DTYPE)}"
        )
    return BYTES_OF_DTYPE[dtype]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot read it: {error}") from None
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}: not JSON: {error}") from None
    if not isinstance(config, dict):
        raise ConfigError(f"{path}: not the config.json of a Hugging Face model: no object")
    return config
