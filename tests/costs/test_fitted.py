"""`fitted:FILE`: its formula, its file, and what is told of a file that is none."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given

from schedsim.costs import PartedCost, load_fitted, make_step_cost
from schedsim.costs.fitted import TERMS, Coefficients, FittedFile, Parts, make_fitted
from schedsim.errors import ConfigError
from schedsim.scheduler.batch import BatchShape
from tests.costs.shapes import batch_shapes, shape_of

PARTS = Parts(
    host=Coefficients(base=0.5, prefill_requests=0.25),
    device=Coefficients(
        base=1.5,
        prefill_requests=1.75,
        prefill_tokens=10.0,
        prefill_attention=100.0,
        decode_requests=1e3,
        decode_context=1e4,
        sampled=1e5,
        swapped_blocks=1e6,
        copied_blocks=1e7,
    ),
    gap=Coefficients(sampled=5.0),
)


def content(**changes: Any) -> FittedFile:
    fields: dict[str, Any] = {
        "parts": PARTS,
        "ranges": {"prefill_tokens": (0.0, 512.0)},
        "steps": 100,
        "provenance": {"model": "tiny", "device": "a CPU", "runs": []},
        "residuals": {},
        "warnings": [],
    }
    return FittedFile(**{**fields, **changes})


def write(path: Path, **changes: Any) -> Path:
    path.write_text(content(**changes).model_dump_json())
    return path


def test_each_coefficient_prices_its_own_count_in_every_part() -> None:
    shape = shape_of([(2, 3)], [5, 6], [7])
    shape.swapped_blocks, shape.copied_blocks = 4, 3
    attention = 2 * (3 + 2 / 2)
    assert make_fitted(content(), "f").seconds(shape) == pytest.approx(
        2.0 + 2.0 + 20 + 100 * attention + 1e3 * 3 + 1e4 * 18 + 100005 * 2 + 4e6 + 3e7
    )


@given(batch_shapes())
def test_the_parts_add_up(shape: BatchShape) -> None:
    cost = make_fitted(content(), "f")
    assert isinstance(cost, PartedCost)
    parts = cost.parts(shape)
    assert parts.host == 0.5 + 0.25 * shape.prefill_requests
    assert parts.gap == 5.0 * shape.sampled
    assert sum(parts) == pytest.approx(cost.seconds(shape))


@given(batch_shapes(), batch_shapes())
def test_a_larger_batch_never_takes_less(one: BatchShape, other: BatchShape) -> None:
    names = BatchShape.__dataclass_fields__
    both = BatchShape(**{name: getattr(one, name) + getattr(other, name) for name in names})
    seconds = make_fitted(content(), "f").seconds
    assert seconds(both) >= max(seconds(one), seconds(other))


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    path = write(tmp_path / "a=b,c.json")
    cost = make_step_cost(f"fitted:{path}")
    assert cost == load_fitted(str(path))
    assert cost.describe()["parts"]["device"]["base"] == 1.5
    assert json.loads(json.dumps(cost.describe())) == cost.describe()
    assert set(cost.describe()["parts"]["gap"]) == set(TERMS)


def _changed(**changes: Any) -> bytes:
    return json.dumps({**content().model_dump(mode="json"), **changes}).encode()


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (b"{", "JSON"),
        (b"[]", "object"),
        (b"\xff\xfe", "cannot read the file"),
        (b"{}", "parts: Field required"),
        (_changed(file_version=2), "file_version"),
        (_changed(kind="a cake"), "kind"),
        (_changed(colour="red"), "colour: Extra inputs"),
        (_changed(parts={"device": {"base": -1.0}}), "parts.device.base: Input should be greater"),
        (_changed(parts={"device": {"bias": 1.0}}), "parts.device.bias: Extra inputs"),
        (_changed(parts={"device": {"base": "1"}}), "parts.device.base: Input should be a valid"),
        (_changed(parts={"device": {"base": float("nan")}}), "parts.device.base: Input should be"),
    ],
)
def test_what_is_no_such_file_is_one_message(tmp_path: Path, stored: bytes, said: str) -> None:
    path = tmp_path / "step.json"
    path.write_bytes(stored)
    with pytest.raises(ConfigError) as caught:
        load_fitted(str(path))
    message = str(caught.value)
    assert f"fitted:{path}" in message
    assert said in message
    assert "\n" not in message


def test_a_file_that_is_not_there_says_what_writes_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="schedsim calibrate"):
        load_fitted(str(tmp_path / "nowhere.json"))
    with pytest.raises(ConfigError, match="write fitted:FILE"):
        make_step_cost("fitted:")
