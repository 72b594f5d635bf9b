"""A config.json says what the decoder computes; what it cannot compute is told by field."""

import json
from pathlib import Path
from typing import Any

import pytest

from schedsim.errors import ConfigError
from schedsim.executor.config import load_config, tiny

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "hidden_act": "silu",
    "hidden_size": 64,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 97,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
}


def written(directory: Path, **changes: Any) -> Path:
    path = directory / "config.json"
    path.write_text(json.dumps(CONFIG | changes))
    return path


def test_shape_is_that_of_the_step_time_models(tmp_path: Path) -> None:
    config = load_config(written(tmp_path))
    assert config == load_config(str(tmp_path / "config.json"))
    assert config.shape.kv_bytes_per_token == 2 * 2 * 2 * 16 * 2
    assert config.norm_epsilon == 1e-5
    assert config.rope.theta == 10_000


def test_directory_stands_for_its_config(tmp_path: Path) -> None:
    written(tmp_path, rope_theta=5e5)
    assert load_config(tmp_path).rope.theta == 5e5


def test_named_models_have_a_config() -> None:
    assert load_config("llama-3-8b").shape.layers == 32
    with pytest.raises(ConfigError, match="can be simulated only"):
        load_config("opt-13b")
    with pytest.raises(ConfigError, match="llama-3-8b"):
        load_config("lama-3-8b")


def test_a_directory_does_not_hide_a_named_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "llama-3-8b").mkdir()
    written(tmp_path / "llama-3-8b")
    monkeypatch.chdir(tmp_path)
    assert load_config("llama-3-8b").rope.max_model_len == 8192
    assert load_config("./llama-3-8b").rope.max_model_len == 128


def test_trained_length_beside_the_scaling_wins(tmp_path: Path) -> None:
    scaling = {"type": "yarn", "factor": 2.0, "original_max_position_embeddings": 32}
    assert load_config(written(tmp_path, rope_scaling=scaling)).rope.trained_len == 32
    path = written(tmp_path, rope_scaling=scaling, original_max_position_embeddings=64)
    assert load_config(path).rope.trained_len == 64


def test_tiny_models_differ_in_what_is_asked_for() -> None:
    assert tiny(qk_norm=True).shape.qk_norm
    assert not tiny().shape.qk_norm


LLAMA3 = {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1, "high_freq_factor": 4}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "opt", "ffn_dim": 8}, "model_type 'opt' can be simulated"),
        ({"model_type": "gemma2"}, "model_type 'gemma2'"),
        ({"hidden_act": "gelu"}, "hidden_act 'gelu'"),
        ({"head_dim": 15}, "head_dim 15 is odd"),
        ({"model_type": "mistral", "sliding_window": 64}, "sliding_window = 64"),
        ({"model_type": "mistral", "max_position_embeddings": 8192}, "sliding_window = 4096"),
        (
            {"model_type": "qwen2", "sliding_window": 64, "use_sliding_window": True},
            "sliding_window = 64",
        ),
        ({"layer_types": ["full_attention", "sliding_attention"]}, "'sliding_attention'"),
        ({"rms_norm_eps": 0}, "rms_norm_eps = 0 is not a number above 0"),
        ({"rms_norm_eps": "small"}, "rms_norm_eps = 'small' is not a number"),
        ({"rope_theta": True}, "rope_theta = True is not a number"),
        ({"rope_scaling": {"rope_type": "longrope"}}, "'longrope' is not supported; known: def"),
        ({"rope_scaling": {"type": "su"}}, "rope_type 'su'"),
        ({"rope_scaling": 3}, "rope_parameters = 3"),
        ({"rope_parameters": {"full_attention": {"rope_theta": 1e4}}}, "differ by layer"),
        ({"rope_scaling": {"type": "linear"}}, "field 'factor' is missing"),
        ({"rope_scaling": {"type": "dynamic", "factor": "2"}}, "factor = '2' is not a number"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8}}, "'low_freq_factor' is missing"),
        ({"rope_scaling": LLAMA3 | {"high_freq_factor": 1}}, "is not above low_freq_factor"),
        ({"rope_scaling": {"type": "yarn", "truncate": "no"}}, "truncate = 'no'"),
        ({"partial_rotary_factor": 0.5}, "partial_rotary_factor = 0.5"),
    ],
)
def test_what_cannot_be_computed_is_named(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    path = written(tmp_path, **changes)
    with pytest.raises(ConfigError, match=message) as caught:
        load_config(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"model_type": "mistral", "sliding_window": None},
        {"model_type": "mistral", "sliding_window": 128},
        {"model_type": "qwen2", "sliding_window": 64, "use_sliding_window": False},
        {"model_type": "llama", "sliding_window": 64},
        {"rope_scaling": None},
    ],
)
def test_harmless_settings_pass(changes: dict[str, Any], tmp_path: Path) -> None:
    load_config(written(tmp_path, **changes))
