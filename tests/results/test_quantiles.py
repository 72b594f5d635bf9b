"""Weighted statistics against numpy on the expanded samples."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schedsim.results.quantiles import QUANTILES, describe

samples = st.lists(
    st.tuples(st.floats(0, 1e6, allow_subnormal=False), st.integers(0, 60)), min_size=1, max_size=40
)


@given(samples)
def test_statistics_are_numpys_on_the_expanded_list(pairs: list[tuple[float, int]]) -> None:
    values = np.array([value for value, _ in pairs])
    weights = np.array([weight for _, weight in pairs])
    expanded = np.repeat(values, weights)
    found = describe(values, weights)
    assert found["count"] == len(expanded)
    for name, q, needed in QUANTILES:
        wanted = np.percentile(expanded, 100 * q) if len(expanded) >= needed else None
        assert found[name] == wanted
    if len(expanded):
        assert found["max"] == expanded.max()
        np.testing.assert_allclose(found["mean"], expanded.mean(), rtol=1e-12)


def test_quantiles_are_null_below_one_over_one_minus_q_samples() -> None:
    for count, known in ((1, []), (2, ["p50"]), (9, ["p50"]), (10, ["p50", "p90"])):
        found = describe(np.arange(float(count)))
        assert [name for name, _, _ in QUANTILES if found[name] is not None] == known
    assert describe(np.arange(99.0))["p99"] is None
    assert describe(np.arange(100.0))["p99"] == np.percentile(np.arange(100.0), 99)


def test_statistics_of_nothing_are_null_and_nan_is_left_out() -> None:
    assert set(describe(np.array([])).values()) == {0, None}
    assert describe(np.array([np.nan, 2.0]))["max"] == 2.0
    assert describe(np.array([np.nan, 2.0]))["count"] == 1
