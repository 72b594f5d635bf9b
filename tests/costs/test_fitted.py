"""`fitted:FILE`: its formula, its file, and what is told of a file that is none."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.costs import PartedCost, load_fitted, make_step_cost
from schedsim.costs.features import FEATURES, Padding
from schedsim.costs.fitted import make_fitted
from schedsim.costs.fitted_file import FittedFile, Part, Parts, Term
from schedsim.costs.throttle import Throttle
from schedsim.errors import ConfigError
from schedsim.scheduler.batch import BatchShape
from tests.costs.shapes import batch_shapes, shape_of


def line(slope: float) -> Term:
    return Term(knots=[0.0], slopes=[slope])


PARTS = Parts(
    host=Part(base=0.5, terms={"prefill_requests": line(0.25)}),
    device=Part(
        base=1.5,
        terms={
            "tokens": Term(knots=[0.0, 1.0, 8.0], slopes=[0.5, 0.0, 0.125]),
            "tiles": line(0.375),
            "launched": line(3.0),
            "prefill_requests": line(1.75),
            "prefill_tokens": line(10.0),
            "prefill_context": line(0.0625),
            "prefill_attention": line(100.0),
            "prefill_span": line(50.0),
            "decode_requests": line(1e3),
            "sampled": line(1e5),
            "swapped_blocks": line(1e6),
            "copied_blocks": line(1e7),
            "mixed_context": line(0.75),
            "decode_context": Term(knots=[0.0, 1000.0], slopes=[0.0, 1e4]),
            "longest_context": line(0.3),
        },
    ),
    gap=Part(terms={"sampled": line(5.0), "longest_context": line(0.7)}),
)
PADDING = Padding(decodes=[1, 2, 4, 8], mixed=[16, 4096], chunks=[2, 4], attended=128)


def content(**changes: Any) -> FittedFile:
    fields: dict[str, Any] = {
        "parts": PARTS,
        "padding": PADDING,
        "ranges": {"prefill_tokens": (0.0, 512.0)},
        "steps": 100,
        "provenance": {"model": "tiny", "device": "a CPU", "runs": []},
        "residuals": {},
        "noise": {"decode": [0.9, 1.0, 1.3]},
        "warnings": [],
    }
    return FittedFile(**{**fields, **changes})


def write(path: Path, **changes: Any) -> Path:
    path.write_text(content(**changes).model_dump_json())
    return path


def test_each_feature_is_priced_in_every_part() -> None:
    shape = shape_of([(2, 3)], [600, 500], [700])
    shape.swapped_blocks, shape.copied_blocks = 4, 3
    attention = 2 * (3 + 2 / 2)
    parts = make_fitted(content(), "f").parts(shape)
    assert parts.host == 0.75
    assert parts.device == pytest.approx(
        1.5
        + (0.5 + 8 * 0.125 + 0.375)  # five tokens run, padded to 16, in one tile
        + (1.75 + 20 + 3 * 0.0625 + 100 * attention + 50 * (2 + 3))
        + (1e3 * 3 + 1e5 * 2 + 4e6 + 3e7)
        + (0.75 * 1800 + 1e4 * 800 + 0.3 * 600)
    )
    assert parts.gap == pytest.approx(10 + 0.7 * 600)


@given(batch_shapes())
def test_the_parts_add_up(shape: BatchShape) -> None:
    cost = make_fitted(content(), "f")
    assert isinstance(cost, PartedCost)
    parts = cost.parts(shape)
    assert parts.host == 0.5 + 0.25 * shape.prefill_requests
    assert parts.host + parts.device + parts.gap == cost.seconds(shape)


@st.composite
def costs(draw: st.DrawFn) -> FittedFile:
    """A file with any curves, with or without padding and throttle."""
    slopes = st.one_of(st.just(0.0), st.floats(1e-9, 10.0))

    def term() -> Term:
        ends = sorted(draw(st.sets(st.integers(1, 200_000), max_size=4)))
        knots = [0.0, *map(float, ends)]
        return Term(knots=knots, slopes=[draw(slopes) for _ in knots])

    names = draw(st.sets(st.sampled_from(FEATURES)))
    device = Part(base=draw(slopes), terms={name: term() for name in sorted(names)})
    padding = draw(st.sampled_from([PADDING, Padding()]))
    throttle = draw(st.sampled_from([None, Throttle(window_s=0.05, slowdown=1e-5, context=0.01)]))
    return content(parts=Parts(device=device), padding=padding, throttle=throttle)


@given(costs(), batch_shapes(), batch_shapes(), st.data())
def test_a_batch_that_is_larger_in_any_way_never_takes_less(
    file: FittedFile, shape: BatchShape, other: BatchShape, data: st.DataObject
) -> None:
    """Not by a bit: in one count alone, and with all that another batch runs beside it."""
    parts = make_fitted(file, "f").parts
    name = data.draw(st.sampled_from([field.name for field in fields(BatchShape)]))
    more = data.draw(st.integers(1, 5000))
    values = {field.name: getattr(shape, field.name) for field in fields(BatchShape)}
    larger = BatchShape(**{**values, name: values[name] + more})
    both = BatchShape(**{n: value + getattr(other, n) for n, value in values.items()})
    for whole in (larger, both):
        assert all(a <= b for a, b in zip(parts(shape), parts(whole), strict=True))


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    path = write(tmp_path / "a=b,c.json")
    cost = make_step_cost(f"fitted:{path}")
    assert cost == load_fitted(str(path))
    assert cost.describe()["parts"]["device"]["base"] == 1.5
    assert json.loads(json.dumps(cost.describe())) == cost.describe()
    assert set(cost.describe()["parts"]["device"]["terms"]) == set(FEATURES)


def _changed(**changes: Any) -> bytes:
    return json.dumps({**content().model_dump(mode="json"), **changes}).encode()


def _term(**changes: Any) -> bytes:
    term = {"knots": [0.0], "slopes": [1.0], **changes}
    return _changed(parts={"device": {"terms": {"tokens": term}}})


@pytest.mark.parametrize(
    ("stored", "said"),
    [
        (b"{", "JSON"),
        (b"[]", "object"),
        (b"\xff\xfe", "cannot read the file"),
        (b"{}", "parts: Field required"),
        (
            _changed(file_version=2, padding={"mixed": [16], "max_chunks": 16}),
            "has format 2, this schedsim reads format 3; fit its runs again",
        ),
        (_changed(file_version=4), "has format 4"),
        (_changed(kind="a cake"), "kind"),
        (_changed(colour="red"), "colour: Extra inputs"),
        (_changed(parts={"device": {"base": -1.0}}), "parts.device.base: Input should be greater"),
        (_changed(parts={"device": {"bias": 1.0}}), "parts.device.bias: Extra inputs"),
        (_changed(parts={"device": {"base": "1"}}), "parts.device.base: Input should be a valid"),
        (_changed(parts={"device": {"base": float("nan")}}), "parts.device.base: Input should be"),
        (_changed(parts={"gap": {"terms": {"cakes": {}}}}), "parts.gap.terms.cakes.knots: Field"),
        (_term(slopes=[-1.0]), "parts.device.terms.tokens.slopes.0: Input should be greater"),
        (_term(knots=[1.0]), "knots must ascend from 0"),
        (_term(knots=[0.0, 0.0], slopes=[1.0, 1.0]), "knots must ascend from 0"),
        (_term(slopes=[1.0, 1.0]), "as many slopes as knots"),
        (
            _changed(parts={"gap": {"terms": {"cakes": {"knots": [0.0], "slopes": [1.0]}}}}),
            "cakes is none of tokens, ",
        ),
        (_changed(padding={"decodes": [8, 4]}), "sizes must ascend from 1"),
        (_changed(throttle={"window_s": 0.1}), "throttle.slowdown: Field required"),
        (
            _changed(throttle={"window_s": 0.0, "slowdown": 1.0}),
            "throttle.window_s: Input should be greater than 0",
        ),
        (_changed(padding={"mixed": [8]}), "padding: Value error, there must be as many chunks"),
        (_changed(noise={"decode": []}), "noise.decode: List should have at least 1 item"),
        (_changed(noise={"decode": [1.0, float("inf")]}), "noise.decode.1: Input should be a fini"),
        (_changed(noise={"decodes": [1.0]}), "noise: decodes is none of prefill, decode, mixed"),
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
