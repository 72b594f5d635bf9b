"""`LinearCost` against recorded batches, and its coefficient files."""

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given

from schedsim.costs import LinearCost, make_step_cost
from schedsim.costs.linear import PACKAGED, load_linear
from schedsim.errors import ConfigError
from schedsim.scheduler.batch import BatchShape
from tests.costs.shapes import batch_shapes, shape_of

COEFFICIENTS = {
    "base_ms": "6.0",
    "prefill_token_ms": "0.055",
    "decode_request_ms": "0.03",
    "prefill_attention_ms": "3.5e-6",
    "decode_context_ms": "4e-5",
}


def write(path: Path, **changes: str | None) -> Path:
    """A coefficient file; None leaves a key out."""
    values = {**COEFFICIENTS, **changes}
    path.write_text("".join(f"{key} = {value}\n" for key, value in values.items() if value))
    return path


@pytest.mark.parametrize("case", ["cf_vllm_light", "cf_sarathi_pressure"])
def test_every_recorded_duration_bit_for_bit(case: str, shared_oracles: Path) -> None:
    seconds = make_step_cost("linear:vidur-closed-form").seconds
    num_batches = 0
    with gzip.open(shared_oracles / "vidur" / case / "batches.jsonl.gz", "rt") as lines:
        for batch in map(json.loads, lines):
            chunks = [(tokens, before) for _, tokens, before, done in batch["items"] if not done]
            contexts = [before for _, _, before, done in batch["items"] if done]
            assert seconds(shape_of(chunks, contexts)) == batch["dur"], batch["batch"]
            num_batches += 1
    summary = json.loads((shared_oracles / "vidur" / case / "summary.json").read_text())
    assert num_batches == summary["batches"]


def test_copies_cost_what_the_file_says(tmp_path: Path) -> None:
    shape = BatchShape(swapped_blocks=3, copied_blocks=5)
    assert load_linear(str(write(tmp_path / "f"))).seconds(shape) == 6e-3
    file = write(tmp_path / "f", swap_block_ms="2.0", copy_block_ms="0.5")
    assert load_linear(str(file)).seconds(shape) == pytest.approx(14.5e-3)


@given(batch_shapes())
def test_padding_costs_what_decodes_cost(shape: BatchShape) -> None:
    cost = load_linear("vidur-closed-form")
    decodes = replace(
        shape,
        decode_requests=shape.decode_requests + shape.padding_requests,
        decode_context=shape.decode_context + shape.padding_context,
        padding_requests=0,
        padding_context=0,
    )
    assert cost.seconds(shape) == cost.seconds(decodes)


def test_each_coefficient_prices_its_own_count() -> None:
    cost = LinearCost(1.0, 10.0, 100.0, 1000.0, 10000.0)
    shape = shape_of([(2, 3)], [5, 6])
    assert cost.seconds(shape) == pytest.approx((1 + 20 + 200 + 2 * 4 * 1000 + 110000) / 1000)


def test_a_file_gives_the_coefficients_that_stand_in_it(tmp_path: Path) -> None:
    # Whole numbers are numbers; commas and equals signs in a path belong to the path.
    path = write(tmp_path / "a=b,c.toml", base_ms="6")
    assert make_step_cost(f"linear:{path}") == load_linear("vidur-closed-form")


def test_every_packaged_file_is_listed_and_loads() -> None:
    folder = Path(__file__).parents[2] / "schedsim" / "costs"
    files = {path.stem for path in folder.glob("*.toml")} - {"models", "gpus"}
    assert files == set(PACKAGED)
    for name in PACKAGED:
        described = load_linear(name).describe()
        assert json.loads(json.dumps(described)) == described


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("base_ms", "-1.0", "greater than or equal to 0"),
        ("decode_context_ms", "nan", "finite"),
        ("prefill_token_ms", "inf", "finite"),
        ("prefill_token_ms", '"0.05"', "valid number"),
        ("decode_request_ms", "true", "valid number"),
        ("prefill_attention_ms", None, "missing"),
        ("decode_tokens_ms", "1.0", "not a coefficient"),
    ],
)
def test_a_bad_coefficient_names_file_and_key(
    key: str, value: str | None, said: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "step.toml", **{key: value})
    with pytest.raises(ConfigError) as caught:
        load_linear(str(path))
    message = str(caught.value)
    assert str(path) in message
    assert key in message
    assert said in message


@pytest.mark.parametrize("content", [b"base_ms = ", b"\xff\xfe\x00", b"{}"])
def test_what_is_no_toml_file_names_the_file(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "step.toml"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"step\.toml"):
        load_linear(str(path))


@pytest.mark.parametrize("name", ["nowhere.toml", "vidur", "models", "."])
def test_a_file_that_is_not_there_says_what_comes_with_the_package(name: str) -> None:
    with pytest.raises(ConfigError, match="vidur-closed-form"):
        load_linear(name)
