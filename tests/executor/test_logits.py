"""Logits equal transformers' on random tiny models, whatever happens to a sequence on the way."""

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

from tests.executor.models import (
    FAMILIES,
    VOCAB,
    Sequences,
    expected_logits,
    loaded,
    random_model,
    relative_error,
    saved,
)

Pair = tuple[Any, Any]


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def pair(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The same random model in transformers and here."""
    model = random_model(request.param)
    directory: Path = tmp_path_factory.mktemp(request.param)
    return model, loaded(saved(model, directory))


@pytest.fixture(params=["paged", "contiguous"])
def sequences(request: pytest.FixtureRequest, pair: Pair) -> Sequences:
    return Sequences(pair[1], contiguous=request.param == "contiguous")


def draw(count: int, seed: int) -> list[int]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, VOCAB, (count,), generator=generator).tolist()


def check(pair: Pair, sequences: Sequences, logits: dict[str, Any]) -> None:
    """The logits are transformers' after all tokens that each sequence has run so far."""
    for name, actual in logits.items():
        expected = expected_logits(pair[0], sequences.tokens[name][: sequences.contexts[name]])
        assert relative_error(actual, expected) < 1e-4, name


def test_prefill(pair: Pair, sequences: Sequences) -> None:
    for name, length in {"a": 1, "b": 4, "c": 23}.items():
        sequences.add(name, draw(length, seed=length))
    check(pair, sequences, sequences.run(a=1, b=4, c=23))


def test_chunked_prefill_beside_decodes(pair: Pair, sequences: Sequences) -> None:
    sequences.add("a", draw(40, seed=1))
    sequences.add("b", draw(12, seed=2))
    check(pair, sequences, sequences.run(b=7))
    for chunk in (5, 11, 1, 16, 4):
        check(pair, sequences, sequences.run(a=chunk, b=1))


def test_decode_one_token_at_a_time(pair: Pair, sequences: Sequences) -> None:
    sequences.add("a", draw(30, seed=1))
    sequences.add("b", draw(25, seed=2))
    sequences.run(a=10, b=3)
    for _ in range(20):
        check(pair, sequences, sequences.run(a=1, b=1))


def test_only_asked_for_rows_have_logits(pair: Pair) -> None:
    from schedsim.executor.forward_batch import Segment, build_batch

    sequences = Sequences(pair[1])
    tokens = {name: draw(6, seed) for name, seed in (("a", 1), ("b", 2), ("c", 3))}
    for name, ids in tokens.items():
        sequences.add(name, ids)
    segments = [Segment(tokens[n], 0, sequences.tables[n], samples=n != "b") for n in "abc"]
    logits = pair[1].forward(build_batch(segments, 4), sequences.store)
    assert logits.shape == (2, VOCAB)
    for actual, name in zip(logits, "ac", strict=True):
        assert relative_error(actual, expected_logits(pair[0], tokens[name])) < 1e-4


def test_cached_prefix_is_not_computed_again(pair: Pair) -> None:
    sequences = Sequences(pair[1])
    prefix = draw(12, seed=1)
    sequences.add("a", prefix + draw(9, seed=2))
    check(pair, sequences, sequences.run(a=21))
    sequences.add("b", prefix + draw(7, seed=3), shared=sequences.tables["a"][:3])
    assert sequences.contexts["b"] == 12
    check(pair, sequences, sequences.run(b=7))


def test_two_sequences_share_a_prefix_in_one_batch(pair: Pair) -> None:
    sequences = Sequences(pair[1])
    prefix = draw(8, seed=1)
    sequences.add("a", prefix + draw(6, seed=2))
    sequences.run(a=8)
    sequences.add("b", prefix + draw(6, seed=3), shared=sequences.tables["a"][:2])
    check(pair, sequences, sequences.run(a=3, b=5))
    check(pair, sequences, sequences.run(a=1, b=1))


def test_recompute_after_a_preemption(pair: Pair, sequences: Sequences) -> None:
    sequences.add("a", draw(30, seed=1))
    sequences.add("b", draw(30, seed=2))
    sequences.run(a=10, b=13)
    sequences.run(a=1, b=1)
    for block in sequences.tables["b"]:
        for layer in sequences.store.layers:
            layer[block] = torch.nan
    sequences.add("b", sequences.tokens["b"])  # other blocks, nothing computed
    check(pair, sequences, sequences.run(a=1, b=14))
    check(pair, sequences, sequences.run(a=1, b=1))


def test_swap_out_and_in_to_other_blocks(pair: Pair, sequences: Sequences) -> None:
    sequences.add("a", draw(30, seed=1))
    sequences.add("b", draw(30, seed=2))
    sequences.run(a=10, b=13)
    held = sequences.tables["b"]
    host = list(range(len(held), 0, -1))
    sequences.store.swap_out(list(zip(held, host, strict=True)))
    for block in held:
        for layer in sequences.store.layers:
            layer[block] = torch.nan
    check(pair, sequences, sequences.run(a=1))
    sequences.tables["b"] = sequences.take(len(held))
    sequences.store.swap_in(list(zip(host, sequences.tables["b"], strict=True)))
    check(pair, sequences, sequences.run(a=1, b=1))


def test_copied_block_parts_from_its_source(pair: Pair) -> None:
    sequences = Sequences(pair[1])
    prefix = draw(6, seed=1)
    sequences.add("a", prefix + draw(4, seed=2))
    sequences.run(a=6)
    sequences.add("b", prefix + draw(4, seed=3))
    pairs = zip(sequences.tables["a"][:2], sequences.tables["b"][:2], strict=True)
    sequences.store.copy_blocks(list(pairs))
    sequences.contexts["b"] = 6
    check(pair, sequences, sequences.run(a=4, b=4))


def test_float64_agrees_with_transformers_in_float64(tmp_path: Path) -> None:
    model = random_model("qwen3")
    sequences = Sequences(loaded(saved(model, tmp_path), torch.float64))
    sequences.add("a", draw(20, seed=1))
    logits = sequences.run(a=20)["a"]
    assert logits.dtype == torch.float64
    # transformers takes its norms and its softmax in float32 whatever the weights are.
    assert relative_error(logits, expected_logits(model.double(), sequences.tokens["a"])) < 1e-6
