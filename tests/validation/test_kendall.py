"""Kendall's tau-b against scipy's, and what must hold of any rank correlation."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.experiments.validation.kendall import kendall_tau

stats = pytest.importorskip("scipy.stats")

PAIRS = st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=60)


@given(PAIRS)
def test_it_is_that_of_scipy(pairs: list[tuple[int, int]]) -> None:
    x, y = zip(*pairs, strict=True)
    expected = stats.kendalltau(x, y, variant="b").statistic
    found = kendall_tau(x, y)
    if math.isnan(expected):
        assert found is None
    else:
        assert found == pytest.approx(expected, abs=1e-12)


@given(st.permutations(range(30)))
def test_an_order_agrees_with_itself_and_not_with_its_reverse(order: list[int]) -> None:
    assert kendall_tau(order, order) == 1.0
    assert kendall_tau(order, order[::-1]) == kendall_tau(order[::-1], order)
    assert kendall_tau(order, [-place for place in order]) == -1.0


def test_too_few_have_none() -> None:
    assert kendall_tau([], []) is None
    assert kendall_tau([1.0], [2.0]) is None
    assert kendall_tau([1.0, 1.0], [1.0, 2.0]) is None
