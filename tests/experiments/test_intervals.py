"""Intervals from dependent samples cover what they should, and Holm's correction is his."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from schedsim.experiments.intervals import (
    FEWEST_BATCHES,
    MOST_BATCHES,
    Estimate,
    Values,
    difference_of,
    effective_size,
    holm,
    in_batches,
    num_batches,
)
from schedsim.results.quantiles import Floats


def autoregressive(size: int, lag1: float, rng: np.random.Generator) -> Floats:
    """A series whose mean is told as well by size · (1 - lag1) / (1 + lag1) independent values."""
    values = rng.standard_normal(size)
    for place in range(1, size):
        values[place] += lag1 * values[place - 1]
    return values


def test_the_parts_of_a_mean_are_the_means_of_the_batches() -> None:
    samples = np.random.default_rng(1).exponential(size=120)
    values = in_batches(samples, np.mean, 6)
    assert values.parts == pytest.approx(samples.reshape(6, 20).mean(axis=1))
    assert values.estimate == pytest.approx(Values.of_mean(values.parts).estimate)


def test_an_interval_of_a_quantile_covers_it() -> None:
    rng = np.random.default_rng(3)
    covered = 0
    for _ in range(300):
        samples = rng.exponential(size=2000)
        estimate = in_batches(samples, lambda p: float(np.quantile(p, 0.9)), 10).estimate
        covered += abs(estimate.value - np.log(10)) <= estimate.half_width(0.05)
    assert 275 <= covered <= 297  # 285 expected, 3.8 the standard deviation


@pytest.mark.parametrize("lag1", [0.0, 0.5, 0.9])
def test_the_effective_size_is_that_of_the_process(lag1: float) -> None:
    rng = np.random.default_rng(4)
    sizes = [effective_size(autoregressive(8000, lag1, rng)) for _ in range(10)]
    assert np.mean(sizes) == pytest.approx(8000 * (1 - lag1) / (1 + lag1), rel=0.15)


def test_samples_that_are_all_the_same_are_worth_themselves() -> None:
    assert effective_size(np.full(10, 3.0)) == 10
    assert effective_size(np.arange(3.0)) == 3
    assert Values.of_mean(np.full(10, 3.0)).estimate.p == 0.0
    assert Estimate(0.0, 0.0, 3).p == 1.0


def test_the_intervals_of_a_correlated_series_cover_its_mean() -> None:
    rng = np.random.default_rng(5)
    covered, naive = 0, 0
    for _ in range(300):
        series = autoregressive(1500, 0.9, rng)
        batches = num_batches(effective_size(series))
        estimate = in_batches(series, np.mean, batches).estimate
        covered += abs(estimate.value) <= estimate.half_width(0.05)
        naive += abs(series.mean()) <= Values.of_mean(series).estimate.half_width(0.05)
    assert 270 <= covered <= 298
    assert naive < 200  # what taking the requests for independent would come to


def test_there_are_few_batches_and_never_too_few() -> None:
    assert [num_batches(worth) for worth in (1.0, 40.0, 1e6)] == [FEWEST_BATCHES, 5, MOST_BATCHES]


@pytest.mark.parametrize("paired", [True, False])
def test_a_difference_has_the_p_value_of_scipy(paired: bool) -> None:
    rng = np.random.default_rng(6)
    a, b = rng.normal(size=9), rng.normal(0.5, 3.0, size=9)
    test = stats.ttest_rel(a, b) if paired else stats.ttest_ind(a, b, equal_var=False)
    difference = difference_of(Values.of_mean(a), Values.of_mean(b), paired)
    assert difference.p == pytest.approx(test.pvalue)
    assert difference.value == pytest.approx(b.mean() - a.mean())


def test_a_drift_that_both_share_is_no_error() -> None:
    rng = np.random.default_rng(7)
    noise = rng.normal(size=10)
    a, b = Values.of_mean(np.zeros(10)), Values.of_mean(noise + 50.0 * np.arange(10))
    plain, drifting = difference_of(a, b, True), difference_of(a, b, True, drifts=True)
    line = stats.linregress(np.arange(10), b.parts)
    residuals = b.parts - line.intercept - line.slope * np.arange(10)
    assert drifting.error == pytest.approx(np.sqrt((residuals**2).sum() / 8 / 10))
    assert drifting.freedom == 8
    assert drifting.value == plain.value == pytest.approx(b.parts.mean())
    assert drifting.error < plain.error / 50


def test_holm_corrects_as_his_example_does() -> None:
    # p of 0.01, 0.04, 0.03, 0.005: 4 · 0.005, 3 · 0.01, 2 · 0.03, and no smaller than that
    corrected = holm([0.01, 0.04, 0.03, 0.005], 0.05)
    assert [c.p for c in corrected] == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert [c.level for c in corrected] == pytest.approx([0.05 / 3, 0.05 / 2, 0.05 / 2, 0.05 / 4])
    assert holm([], 0.05) == []


@given(st.lists(st.floats(-4, 4), min_size=1, max_size=8), st.sampled_from([0.01, 0.05, 0.2]))
def test_an_interval_excludes_zero_exactly_where_the_difference_is_told(
    values: list[float], level: float
) -> None:
    estimates = [Estimate(value, 1.0, 9) for value in values]
    for estimate, corrected in zip(estimates, holm([e.p for e in estimates], level), strict=True):
        distance = abs(estimate.value) - estimate.half_width(corrected.level)
        if abs(distance) > 1e-9:
            assert (distance > 0) == (corrected.p < level)
