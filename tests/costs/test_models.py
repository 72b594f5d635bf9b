"""Model shapes against published parameter counts, and configs of Hugging Face, good and bad."""

import json
from pathlib import Path
from typing import Any

import pytest

from schedsim.costs import list_models, load_model
from schedsim.costs.hugging_face import MODEL_TYPES
from schedsim.errors import ConfigError

# Published totals.
PUBLISHED = {
    "opt-13b": 12_853_473_280,
    "llama-2-7b": 6_738_415_616,
    "llama-2-13b": 13_015_864_320,
    "mistral-7b": 7_241_732_096,
    "llama-3-8b": 8_030_261_248,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3-70b": 70_553_706_496,
    "llama-3.2-1b": 1_235_814_400,
    "qwen3-0.6b": 596_049_920,
    "qwen3-8b": 8_190_735_360,
    "qwen3-32b": 32_762_123_264,
    "tiny": 127_296,  # nobody's: counted by hand
}

LLAMA_3_8B = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 8192,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}
QWEN2_7B = {
    "hidden_size": 3584,
    "intermediate_size": 18944,
    "max_position_embeddings": 131072,
    "model_type": "qwen2",
    "num_attention_heads": 28,
    "num_hidden_layers": 28,
    "num_key_value_heads": 4,
    "tie_word_embeddings": False,
    "vocab_size": 152064,
}
MISTRAL_7B = {
    "head_dim": None,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 32768,
    "model_type": "mistral",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "vocab_size": 32000,
}
QWEN3_600M = {
    "attention_bias": False,
    "dtype": "bfloat16",
    "head_dim": 128,
    "hidden_size": 1024,
    "intermediate_size": 3072,
    "max_position_embeddings": 40960,
    "model_type": "qwen3",
    "num_attention_heads": 16,
    "num_hidden_layers": 28,
    "num_key_value_heads": 8,
    "tie_word_embeddings": True,
    "vocab_size": 151936,
}
OPT_13B = {
    "ffn_dim": 20480,
    "hidden_size": 5120,
    "max_position_embeddings": 2048,
    "model_type": "opt",
    "num_attention_heads": 40,
    "num_hidden_layers": 40,
    "torch_dtype": "float16",
    "vocab_size": 50272,
    "word_embed_proj_dim": 5120,
}


def write(folder: Path, config: object) -> Path:
    """A model directory with this config.json."""
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def test_every_packaged_model_has_the_published_number_of_parameters() -> None:
    assert {name: load_model(name).num_parameters for name, _ in list_models()} == PUBLISHED


def test_bytes_of_weights_and_of_keys_and_values() -> None:
    model = load_model("llama-3-8b")
    assert model.weight_bytes == 2 * 8_030_261_248
    assert model.kv_bytes_per_token == 128 * 1024
    assert load_model("opt-13b").kv_bytes_per_token == 800 * 1024


def test_gpus_beyond_the_kv_heads_repeat_them() -> None:
    model = load_model("llama-3-8b")
    per_gpu = {degree: model.kv_bytes_per_token_on_gpu(degree) for degree in (1, 2, 4, 8, 16, 32)}
    assert per_gpu == {1: 131072, 2: 65536, 4: 32768, 8: 16384, 16: 16384, 32: 16384}


@pytest.mark.parametrize("degree", [-1, 0, 3, 24, 64])
def test_heads_that_do_not_split_are_refused_with_the_degrees_that_do(degree: int) -> None:
    with pytest.raises(ConfigError, match=rf"tensor-parallel {degree} .*: 1, 2, 4, 8, 16, 32"):
        load_model("llama-3-8b").kv_bytes_per_token_on_gpu(degree)


@pytest.mark.parametrize(
    ("config", "packaged"),
    [(LLAMA_3_8B, "llama-3-8b"), (QWEN3_600M, "qwen3-0.6b"), (OPT_13B, "opt-13b")],
)
def test_a_config_gives_the_packaged_shape(
    config: dict[str, Any], packaged: str, tmp_path: Path
) -> None:
    folder = write(tmp_path, config)
    expected = load_model(packaged).model_dump(exclude={"name"})
    for path in (folder, folder / "config.json"):
        model = load_model(str(path))
        assert model.name == str(path)
        assert model.model_dump(exclude={"name"}) == expected


@pytest.mark.parametrize(
    ("config", "parameters"), [(QWEN2_7B, 7_615_616_512), (MISTRAL_7B, 7_241_732_096)]
)
def test_a_config_gives_the_published_number_of_parameters(
    config: dict[str, Any], parameters: int, tmp_path: Path
) -> None:
    assert load_model(str(write(tmp_path, config))).num_parameters == parameters


def test_biases_and_float32_of_a_config_count(tmp_path: Path) -> None:
    biases = {"attention_bias": True, "mlp_bias": True, "torch_dtype": "float32"}
    model = load_model(str(write(tmp_path, LLAMA_3_8B | biases)))
    in_a_layer = (4096 + 2 * 1024) + 4096 + 2 * 14336 + 4096
    assert model.num_parameters == PUBLISHED["llama-3-8b"] + 32 * in_a_layer
    assert model.weight_bytes == 4 * model.num_parameters


def test_llama_without_kv_heads_has_one_for_each_query_head(tmp_path: Path) -> None:
    config = {key: value for key, value in LLAMA_3_8B.items() if key != "num_key_value_heads"}
    assert load_model(str(write(tmp_path, config))).kv_heads == 32


@pytest.mark.parametrize(
    ("config", "field"),
    [
        (config, field)
        for config in (LLAMA_3_8B, QWEN2_7B, MISTRAL_7B, QWEN3_600M, OPT_13B)
        for field in config
        if field.startswith(("hidden", "intermediate", "ffn", "max", "num", "vocab"))
        and (config, field) != (LLAMA_3_8B, "num_key_value_heads")
    ]
    + [(QWEN3_600M, "head_dim")],
)
def test_a_missing_field_is_named_with_the_file(
    config: dict[str, Any], field: str, tmp_path: Path
) -> None:
    folder = write(tmp_path, {key: value for key, value in config.items() if key != field})
    with pytest.raises(ConfigError, match=rf"config\.json: field '{field}' is missing"):
        load_model(str(folder))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"hidden_size": "4096"}, "hidden_size = '4096'"),
        ({"num_hidden_layers": 0}, "num_hidden_layers = 0"),
        ({"num_attention_heads": True}, "num_attention_heads = True"),
        ({"vocab_size": 1.5}, "vocab_size = 1.5"),
        ({"max_position_embeddings": 1}, "max_position_embeddings = 1"),
        ({"num_key_value_heads": 5}, "not a multiple of num_key_value_heads 5"),
        ({"num_attention_heads": 24}, "'head_dim' is missing"),
        ({"tie_word_embeddings": "no"}, "tie_word_embeddings = 'no'"),
        ({"torch_dtype": "float8_e4m3fn"}, "float8_e4m3fn"),
        ({"quantization_config": {"bits": 4}}, "quantised"),
        ({"num_local_experts": 8}, "mixtures of experts"),
    ],
)
def test_a_wrong_field_is_named_with_its_value(
    changes: dict[str, Any], said: str, tmp_path: Path
) -> None:
    folder = write(tmp_path, LLAMA_3_8B | changes)
    with pytest.raises(ConfigError, match=r"config\.json") as caught:
        load_model(str(folder))
    assert said in str(caught.value)


def test_projected_embeddings_are_refused(tmp_path: Path) -> None:
    folder = write(tmp_path, OPT_13B | {"word_embed_proj_dim": 512})
    with pytest.raises(ConfigError, match="word_embed_proj_dim"):
        load_model(str(folder))


@pytest.mark.parametrize("kind", ["mixtral", "gpt2", None, ["llama"]])
def test_an_unknown_model_type_lists_the_known(kind: object, tmp_path: Path) -> None:
    folder = write(tmp_path, LLAMA_3_8B | {"model_type": kind})
    with pytest.raises(ConfigError, match=", ".join(MODEL_TYPES)):
        load_model(str(folder))


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe\x00"])
def test_what_is_no_config_names_the_file(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes(content)
    with pytest.raises(ConfigError, match=r"config\.json"):
        load_model(str(tmp_path))


def test_a_folder_without_a_config_names_the_file_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json"):
        load_model(str(tmp_path))


def test_an_unknown_name_suggests_the_nearest_and_a_config() -> None:
    with pytest.raises(ConfigError, match=r"'llama-3-8b'.*config\.json"):
        load_model("llama3-8b")
