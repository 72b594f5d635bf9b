"""Curves: they never fall, and one by one they are what they are all at once."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.costs.curves import Curve, pieces

KNOTS = st.lists(st.integers(1, 100_000), unique=True, max_size=6).map(lambda k: [0, *sorted(k)])
SLOPES = st.lists(st.one_of(st.just(0.0), st.floats(1e-12, 1.0)), min_size=7, max_size=7)
COUNTS = st.lists(st.integers(0, 300_000), min_size=1, max_size=20)


@given(KNOTS, SLOPES, COUNTS)
def test_a_curve_never_falls_not_even_by_a_bit(
    knots: list[int], slopes: list[float], counts: list[int]
) -> None:
    curve = Curve(knots, slopes[: len(knots)])
    around = sorted({near for k in knots for near in (max(k - 1, 0), k, k + 1)} | set(counts))
    seconds = [curve.at(count) for count in around]
    assert seconds == sorted(seconds)
    assert curve.at(0) == 0.0


@given(KNOTS, SLOPES, COUNTS)
def test_at_once_is_one_by_one_to_the_bit(
    knots: list[int], slopes: list[float], counts: list[int]
) -> None:
    curve = Curve(knots, slopes[: len(knots)])
    at_once = curve.at_each(np.array(counts, dtype=np.float64))
    assert at_once.tolist() == [curve.at(count) for count in counts]


@given(KNOTS, SLOPES, COUNTS)
def test_a_curve_is_its_pieces_times_its_slopes(
    knots: list[int], slopes: list[float], counts: list[int]
) -> None:
    slopes = slopes[: len(knots)]
    curve = Curve(knots, slopes)
    reach = pieces(np.array(counts, dtype=np.float64), knots)
    assert reach.sum(axis=1).tolist() == counts
    assert (reach @ slopes).tolist() == pytest.approx([curve.at(count) for count in counts])
