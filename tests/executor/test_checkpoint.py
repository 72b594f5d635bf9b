"""Checkpoints load as transformers saved them; a wrong one is told by file, tensor and shape."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file

from schedsim.errors import ConfigError
from schedsim.executor.checkpoint import INDEX_FILE, load_weights
from schedsim.executor.config import load_config
from tests.executor.models import (
    FAMILIES,
    Sequences,
    expected_logits,
    loaded,
    random_model,
    relative_error,
    saved,
)

Tensors = dict[str, Any]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_sharded_checkpoint_is_the_single_one(family: str, tmp_path: Path) -> None:
    model = random_model(family)
    directory = saved(model, tmp_path, max_shard_size="60KB")
    index = json.loads((directory / INDEX_FILE).read_text())
    assert len(set(index["weight_map"].values())) > 2
    sequences = Sequences(loaded(directory))
    sequences.add("a", [5, 4, 3, 2, 1])
    expected = expected_logits(model, sequences.tokens["a"])
    assert relative_error(sequences.run(a=5)["a"], expected) < 1e-4


def test_tied_head_is_the_embedding_itself(tmp_path: Path) -> None:
    weights = loaded(saved(random_model("qwen2"), tmp_path)).weights
    assert weights.head is weights.embedding


def test_stored_type_is_cast(tmp_path: Path) -> None:
    directory = saved(random_model("llama").to(torch.bfloat16), tmp_path)
    config = load_config(directory)
    assert load_weights(directory, config).embedding.dtype == torch.float32
    assert load_weights(directory, config, dtype=torch.bfloat16).head.dtype == torch.bfloat16


def drop(tensors: Tensors) -> None:
    del tensors["model.layers.1.mlp.up_proj.weight"]


def narrow(tensors: Tensors) -> None:
    tensors["model.layers.2.self_attn.k_proj.weight"] = torch.zeros(16, 64)


def add(tensors: Tensors) -> None:
    tensors["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(64)


def quantise(tensors: Tensors) -> None:
    tensors["model.norm.weight"] = torch.zeros(64, dtype=torch.int8)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, r"tensor 'model.layers.1.mlp.up_proj.weight' of shape \[80, 64\] is missing"),
        (narrow, r"model.safetensors: tensor .*k_proj.weight' has shape \[16, 64\], .* \[32, 64\]"),
        (add, r"model.safetensors: the model of config.json has no tensor .*q_proj.bias'"),
        (quantise, r"model.safetensors: tensor 'model.norm.weight' is torch.int8"),
    ],
)
def test_wrong_tensor_is_named(
    change: Callable[[Tensors], None], message: str, tmp_path: Path
) -> None:
    directory = saved(random_model("llama"), tmp_path)
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")
    with pytest.raises(ConfigError, match=message):
        load_weights(directory, load_config(directory))


def test_derived_tensors_of_old_files_are_passed_over(tmp_path: Path) -> None:
    directory = saved(random_model("qwen2"), tmp_path)
    tensors = load_file(directory / "model.safetensors")
    tensors["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.zeros(8)
    tensors["lm_head.weight"] = torch.zeros(97, 64)
    save_file(tensors, directory / "model.safetensors")
    weights = load_weights(directory, load_config(directory))
    assert weights.head is weights.embedding


def test_directory_without_weights_is_named(tmp_path: Path) -> None:
    directory = saved(random_model("llama"), tmp_path)
    (directory / "model.safetensors").unlink()
    with pytest.raises(ConfigError, match=r"neither model.safetensors nor .*index.json is there"):
        load_weights(directory, load_config(directory))


def test_damaged_file_is_named(tmp_path: Path) -> None:
    directory = saved(random_model("llama"), tmp_path)
    path = directory / "model.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ConfigError, match=r"model.safetensors: not a readable safetensors file"):
        load_weights(directory, load_config(directory))


def test_missing_shard_is_named(tmp_path: Path) -> None:
    directory = saved(random_model("llama"), tmp_path, max_shard_size="60KB")
    shard = sorted(directory.glob("model-*.safetensors"))[1]
    shard.unlink()
    with pytest.raises(ConfigError, match=f"names {shard.name}, which is not there"):
        load_weights(directory, load_config(directory))


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {"a": 1}}']
)
def test_damaged_index_is_named(content: str, tmp_path: Path) -> None:
    directory = saved(random_model("llama"), tmp_path)
    (directory / INDEX_FILE).write_text(content)
    with pytest.raises(ConfigError, match=r"index.json: not an index with a 'weight_map'"):
        load_weights(directory, load_config(directory))


def test_index_that_names_the_wrong_file_is_told(tmp_path: Path) -> None:
    directory = saved(random_model("llama"), tmp_path, max_shard_size="60KB")
    index = json.loads((directory / INDEX_FILE).read_text())
    names = index["weight_map"]
    names["model.embed_tokens.weight"] = names["model.norm.weight"]
    (directory / INDEX_FILE).write_text(json.dumps(index))
    with pytest.raises(ConfigError, match=r"cannot read tensor 'model.embed_tokens.weight'"):
        load_weights(directory, load_config(directory))
