"""The waterfall: bars that meet, on an axis on which equal factors are equally long."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.report.waterfall import steps_of, waterfall

FACTORS = [("more", 2.0), ("less", 0.5), ("more again", 3.0)]


@given(
    rate=st.floats(1e-2, 1e5),
    factors=st.lists(st.tuples(st.text(), st.floats(0.1, 20)), max_size=6),
)
def test_every_bar_begins_where_the_one_before_it_ends(
    rate: float, factors: list[tuple[str, float]]
) -> None:
    first, *changes, last = steps_of("first", "last", rate, factors)
    at = first["end"]
    assert at == rate
    for step, (_, factor) in zip(changes, factors, strict=True):
        assert step["start"] == at
        at = step["end"]
        assert at / step["start"] == pytest.approx(factor)
        assert step["kind"] == ("gain" if factor >= 1 else "loss")
    assert last["end"] == at
    floor = first["start"]
    assert last["start"] == floor
    assert 0 < floor < min(min(s["start"], s["end"]) for s in changes) if changes else floor < rate


def test_the_figure_has_a_logarithmic_axis_and_a_label_for_each_bar() -> None:
    pytest.importorskip("altair")
    from schedsim.report.export import svg_of

    steps = steps_of("first", "last", 100.0, FACTORS)
    figure = waterfall("waterfall", "title", "tokens/s", steps)
    bars = figure.spec["layer"][0]
    assert bars["encoding"]["x"]["scale"]["type"] == "log"
    low, high = bars["encoding"]["x"]["scale"]["domain"]
    assert low < 100 < 300 < high
    assert math.isclose(steps[-1]["end"], 300)
    drawn = svg_of(figure)
    for label in ("first", "last", "more again", "× 2.00", "× 0.500", "× 3.00", "tokens/s", "300"):
        assert label in drawn
