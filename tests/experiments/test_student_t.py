"""Student's t without scipy gives scipy's numbers."""

import pytest
from scipy import stats

from schedsim.experiments.student_t import critical_value, two_sided_p


@pytest.mark.parametrize("freedom", [1, 2, 3.7, 9, 30, 1e4])
def test_tails_are_those_of_scipy(freedom: float) -> None:
    for t in (0.0, 1e-9, 0.3, -1.0, 2.5, 7.0, 40.0):
        expected = 2 * stats.t.sf(abs(t), freedom)
        assert two_sided_p(t, freedom) == pytest.approx(expected, rel=1e-9, abs=1e-300)
    assert two_sided_p(float("inf"), freedom) == 0.0


@pytest.mark.parametrize("freedom", [1, 2, 3.7, 9, 30])
def test_critical_values_are_those_of_scipy(freedom: float) -> None:
    for level in (0.5, 0.05, 0.01, 1e-5):
        expected = stats.t.isf(level / 2, freedom)
        assert critical_value(level, freedom) == pytest.approx(expected, rel=1e-9)
