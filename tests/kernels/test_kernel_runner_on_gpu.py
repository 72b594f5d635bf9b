"""On a GPU: the named shapes cut to two layers, in bfloat16, against a float32 run; graphs."""

import dataclasses

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from schedsim.executor.config import ModelConfig, load_config
from tests.core.harness import Jobs
from tests.kernels.kernel_engines import execute
from tests.kernels.test_kernel_runner import check_rows

pytestmark = pytest.mark.gpu

JOBS = Jobs(
    prompts=[100, 40, 200, 150, 160, 90],
    outputs=[80, 100, 60, 90, 1, 70],
    arrivals=[0.0, 0.0, 0.0, 0.0, 0.4, 0.5],
)
SETTINGS = {
    "recompute": ("vllm", "paged", 40, {"preemptions", "recomputed_tokens"}),
    "chunks": ("sarathi,chunk_size=64", "paged", 40, {"preemptions"}),
    "prefix caching": ("vllm", "paged,prefix_caching=true", 44, {"preemptions"}),
    "swap": ("vllm-v0,preemption=swap", "paged,host_blocks=200", 40, {"swapped_blocks"}),
    "contiguous": ("vllm", "contiguous", 70, set()),
    "buddy": ("vllm", "buddy", 70, set()),
    "moved": ("vllm", "contiguous,reserve=predicted,compaction=true", 50, {"copied_blocks"}),
    "radix": ("sglang,order=lpm", "radix", 50, set()),
    "vattention": ("vllm", "vattention", 8, set()),
    "static": ("static,batch_size=3", "paged", 70, set()),
}


def cut(name: str) -> ModelConfig:
    """A named shape with two layers."""
    config = load_config(name)
    return dataclasses.replace(config, shape=config.shape.model_copy(update={"layers": 2}))


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("model", ["qwen3-0.6b", "llama-3-8b"])
def test_logits_are_those_of_a_float32_run(model: str, name: str) -> None:
    policy, memory, blocks, happens = SETTINGS[name]
    executed = execute(
        policy, JOBS, blocks=blocks, memory=memory, budget=1024, max_model_len=1024,
        block_size=512 if memory == "vattention" else 16, config=cut(model), device="cuda",
    )  # fmt: skip
    check_rows(executed)
    summary = executed.result.summary
    assert not [count for count in happens if not summary[count]]


@pytest.mark.parametrize("memory", ["paged", "contiguous"])
@pytest.mark.parametrize("temperature", [0.0, 0.6])
def test_a_captured_iteration_samples_what_a_launched_one_does(
    temperature: float, memory: str
) -> None:
    launched, captured = (
        execute(
            "vllm", JOBS, blocks=100, memory=memory, budget=1024, max_model_len=1024, seats=6,
            config=cut("qwen3-0.6b"), device="cuda", temperature=temperature, captured=captured,
        )
        for captured in (False, True)
    )  # fmt: skip
    assert len(launched.tokens) > 50
    assert launched.tokens == captured.tokens
