"""KV blocks beside a model: nothing overcommitted, and errors that say what would fit."""

import re
from pathlib import Path

import pytest

from schedsim.costs import kv_blocks, list_gpus, list_models, load_gpu, load_model
from schedsim.errors import ConfigError


@pytest.mark.parametrize("gpu_name", [name for name, _ in list_gpus()])
@pytest.mark.parametrize("model_name", [name for name, _ in list_models()])
@pytest.mark.parametrize("degree", [1, 4])
def test_blocks_fill_the_memory_that_is_left(model_name: str, gpu_name: str, degree: int) -> None:
    model, gpu = load_model(model_name), load_gpu(gpu_name)
    allowed = 0.9 * gpu.memory_bytes - 2 * 2**30
    block_bytes = 16 * model.kv_bytes_per_token_on_gpu(degree)
    left = allowed - model.weight_bytes / degree
    if left < block_bytes:
        with pytest.raises(ConfigError, match=model_name):
            kv_blocks(model, gpu, degree)
        return
    capacity = kv_blocks(model, gpu, degree)
    assert capacity.blocks * block_bytes <= left < (capacity.blocks + 1) * block_bytes
    assert capacity.kv_bytes == capacity.blocks * block_bytes * degree
    assert str(capacity.blocks) in capacity.explanation
    assert "--blocks is exact" in capacity.explanation


def test_an_engine_counted_a_few_blocks_more(shared_oracles: Path) -> None:
    # 2,588 blocks of 16 for Llama-3.1-8B on an RTX 4090 at the same memory utilisation.
    blocks = kv_blocks(load_model("llama-3.1-8b"), load_gpu("rtx4090")).blocks
    assert 0.9 * 2588 < blocks <= 2588


def test_larger_blocks_hold_as_many_tokens() -> None:
    model, gpu = load_model("qwen3-8b"), load_gpu("a100-40gb")
    small, large = (kv_blocks(model, gpu, block_size=size) for size in (1, 16))
    assert small.blocks // 16 == large.blocks


@pytest.mark.parametrize(("model", "gpu"), [("llama-3-70b", "h100"), ("llama-2-13b", "rtx4090")])
def test_what_the_error_proposes_fits(model: str, gpu: str) -> None:
    shape = load_model(model)
    with pytest.raises(ConfigError, match="--blocks") as caught:
        kv_blocks(shape, load_gpu(gpu))
    degrees = re.findall(r"--tensor-parallel (\d+) fits", str(caught.value))
    gpus = re.findall(r"--gpu (\S+) fits", str(caught.value))
    assert degrees
    for degree in degrees:
        assert kv_blocks(shape, load_gpu(gpu), int(degree)).blocks >= 1
    for name in gpus:
        assert kv_blocks(shape, load_gpu(name)).blocks >= 1


@pytest.mark.parametrize("utilization", [0.0, -0.5, 1.5, float("nan")])
def test_a_utilization_out_of_range_is_refused(utilization: float) -> None:
    with pytest.raises(ConfigError, match="memory_utilization"):
        kv_blocks(load_model("qwen3-0.6b"), load_gpu("h100"), memory_utilization=utilization)


@pytest.mark.parametrize("workspace", [-1.0, float("inf"), float("nan")])
def test_a_workspace_out_of_range_is_refused(workspace: float) -> None:
    with pytest.raises(ConfigError, match="workspace_gib"):
        kv_blocks(load_model("qwen3-0.6b"), load_gpu("h100"), workspace_gib=workspace)
