"""The two one-sided tests against scipy's t distribution, and the rules of the verdict."""

import math
import statistics

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from schedsim.experiments.validation.equivalence import LEVEL, agreement

REPEATS = st.lists(st.floats(0.5, 2.0), min_size=2, max_size=6)


@given(REPEATS, st.floats(0.5, 2.0), st.sampled_from([0.015, 0.03, 0.2]))
def test_the_interval_and_p_are_those_of_the_formula(
    measured: list[float], simulated: float, margin: float
) -> None:
    stats = pytest.importorskip("scipy.stats")
    mean, deviation = statistics.fmean(measured), statistics.stdev(measured)
    assume(deviation > 1e-9)
    found = agreement(measured, simulated, margin)
    assert found.error is not None
    assert found.half_width is not None
    freedom = len(measured) - 1
    standard_error = deviation / mean / math.sqrt(len(measured))
    half = stats.t.ppf(1 - LEVEL, freedom) * standard_error
    assert found.half_width == pytest.approx(half, rel=1e-6)
    # Schuirmann: above -margin and below +margin, each at the level
    above = stats.t.sf((found.error + margin) / standard_error, freedom)
    below = stats.t.cdf((found.error - margin) / standard_error, freedom)
    p = max(above, below)
    assert found.p == pytest.approx(p, rel=1e-6, abs=1e-12)
    if abs(p - LEVEL) > 1e-9:
        assert (found.verdict == "equivalent") == (p < LEVEL)


@given(REPEATS, st.floats(0.5, 2.0), st.floats(0.001, 0.3))
def test_a_spread_wider_than_the_margin_never_passes(
    measured: list[float], simulated: float, margin: float
) -> None:
    found = agreement(measured, simulated, margin)
    assert found.spread is not None
    if len(measured) == 2 and found.spread > margin:
        assert found.verdict != "equivalent"
    if found.verdict == "equivalent":
        assert found.place == "margin"
    if found.verdict == "different":
        assert found.place != "margin"


def test_one_run_is_inconclusive_however_near() -> None:
    assert agreement([1.0], 1.0, 0.03).verdict == "inconclusive"


def test_repeats_without_spread_decide_by_the_margin_alone() -> None:
    assert agreement([2.0, 2.0], 2.05, 0.03).verdict == "equivalent"
    assert agreement([2.0, 2.0], 2.1, 0.03).verdict == "different"


@pytest.mark.parametrize(
    ("simulated", "place"),
    [(1.02, "margin"), (0.98, "margin"), (1.05, "spread"), (1.08, "beyond"), (1.2, "far")],
)
def test_where_an_error_stands(simulated: float, place: str) -> None:
    assert agreement([0.97, 1.03], simulated, 0.03).place == place


def test_nothing_measured_is_no_share() -> None:
    assert agreement([0.0, 0.0], 0.0, 0.03).error == 0.0
    assert agreement([0.0, 0.0], 1.0, 0.03).error is None
    assert agreement([0.0, 0.0], 1.0, 0.03).place is None
