"""Rotary positions equal transformers' for every scaling variant."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from schedsim.executor.config import ROPE_KINDS, load_config
from schedsim.executor.rope import Rope
from tests.executor.models import (
    VOCAB,
    Sequences,
    expected_logits,
    loaded,
    random_model,
    relative_error,
    saved,
)

LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64}

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {"rope_type": "default"},
    "default with a theta": {"rope_type": "default", "rope_theta": 500_000.0},
    "linear": {"rope_type": "linear", "factor": 4.0},
    "dynamic": {"rope_type": "dynamic", "factor": 2.0},
    "llama3": LLAMA3,
    "llama3 with a narrow band": LLAMA3 | {"factor": 32.0, "high_freq_factor": 1.5},
    "llama3 without a trained length": {
        key: value for key, value in LLAMA3.items() if not key.startswith("original")
    },
    "yarn": YARN,
    "yarn without a factor": YARN | {"factor": None},
    "yarn with an attention factor": YARN | {"attention_factor": 0.8},
    "yarn with other betas": YARN | {"beta_fast": 8.0, "beta_slow": 2.0, "rope_theta": 10_000.0},
    "yarn with mscale": YARN | {"mscale": 0.7, "mscale_all_dim": 1.2},
    "yarn not truncated": YARN | {"truncate": False},
    "yarn on a short range": YARN | {"original_max_position_embeddings": 4},
}


def test_every_kind_is_tested() -> None:
    assert {variant["rope_type"] for variant in VARIANTS.values()} == set(ROPE_KINDS)


@pytest.mark.parametrize("name", sorted(VARIANTS))
def test_angles_equal_transformers(name: str, tmp_path: Path) -> None:
    variant = {"rope_theta": 10_000.0} | VARIANTS[name]
    model = random_model("llama", rope_parameters=variant, max_position_embeddings=128)
    config = load_config(saved(model, tmp_path))
    rope = Rope(config.rope, config.shape.head_dim, torch.device("cpu"))
    positions = torch.arange(300)
    actual = rope.cos_sin(positions, torch.full((300,), 300), torch.float32)
    expected = model.model.rotary_emb(torch.zeros(1), positions[None])
    for ours, theirs in zip(actual, expected, strict=True):
        torch.testing.assert_close(ours[:, 0], theirs[0], rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", sorted(VARIANTS))
@pytest.mark.parametrize("family", ["llama", "qwen3"])
def test_logits_equal_transformers_through_chunks(name: str, family: str, tmp_path: Path) -> None:
    variant = {"rope_theta": 10_000.0} | VARIANTS[name]
    model = random_model(family, rope_parameters=variant, max_position_embeddings=128)
    sequences = Sequences(loaded(saved(model, tmp_path)))
    generator = torch.Generator().manual_seed(3)
    sequences.add("a", torch.randint(0, VOCAB, (120,), generator=generator).tolist())
    sequences.add("b", sequences.tokens["a"][::-1][:50])
    for a, b in ((70, 20), (1, 29), (49, 1)):
        logits = sequences.run(a=a, b=b)
        for sequence in "ab":
            tokens = sequences.tokens[sequence][: sequences.contexts[sequence]]
            assert relative_error(logits[sequence], expected_logits(model, tokens)) < 1e-4


def test_dynamic_scaling_beyond_the_trained_length_follows_each_sequence(tmp_path: Path) -> None:
    """Transformers' frequencies grow with the context and its cached keys keep the old ones."""
    variant = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 10_000.0}
    settings = {"rope_parameters": variant, "max_position_embeddings": 32}
    sequences = Sequences(loaded(saved(random_model("llama", **settings), tmp_path)))
    generator = torch.Generator().manual_seed(3)
    sequences.add("a", torch.randint(0, VOCAB, (90,), generator=generator).tolist())
    sequences.add("b", torch.randint(0, VOCAB, (60,), generator=generator).tolist())
    # A model each: transformers' frequencies are one state, ours belong to the sequence.
    models = {name: random_model("llama", **settings) for name in "ab"}
    caches: dict[str, Any] = dict.fromkeys("ab")
    for chunks in ({"a": 20, "b": 31}, {"a": 20, "b": 1}, {"a": 49, "b": 27}, {"a": 1, "b": 1}):
        starts = dict(sequences.contexts)
        logits = sequences.run(**chunks)
        for name, count in chunks.items():
            tokens = sequences.tokens[name][starts[name] : starts[name] + count]
            with torch.no_grad():
                output = models[name](
                    torch.tensor([tokens]), past_key_values=caches[name], use_cache=True
                )
            caches[name] = output.past_key_values
            assert relative_error(logits[name], output.logits[0, -1]) < 1e-4


@pytest.mark.parametrize(
    "spelling",
    [
        {"rope_theta": 5000.0, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {"rope_theta": 5000.0, "rope_scaling": {"rope_type": "linear", "factor": 2}},
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 5000}},
    ],
)
def test_old_and_new_spellings_are_one(spelling: dict[str, Any], tmp_path: Path) -> None:
    import json

    directory = saved(random_model("llama"), tmp_path)
    path = directory / "config.json"
    values = json.loads(path.read_text())
    del values["rope_parameters"]
    path.write_text(json.dumps(values | spelling))
    rope = load_config(directory).rope
    assert (rope.kind, rope.factor, rope.theta) == ("linear", 2.0, 5000.0)
