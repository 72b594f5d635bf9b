"""What figures show is what the summaries say, in few points."""

import numpy as np
import pytest

from schedsim.report.series import (
    MOST_BINS,
    MOST_TENANTS,
    SHARES,
    cdf_points,
    memory_points,
    quantile_pairs,
    tenant_points,
    time_points,
)
from schedsim.results.quantiles import QUANTILES, describe


def test_a_distribution_goes_through_the_quantiles_of_the_summary() -> None:
    values = np.random.default_rng(1).lognormal(size=5000)
    values[::7] = np.nan
    points = {point["share"]: point["value"] for point in cdf_points("a", values)}
    told = describe(values)
    for name, q, _ in QUANTILES:
        assert points[q] == pytest.approx(told[name])
    assert points[1.0] == told["max"]
    assert len(points) == len(SHARES)
    assert cdf_points("a", np.full(3, np.nan)) == []


def test_a_mean_over_time_is_kept() -> None:
    rng = np.random.default_rng(2)
    end = np.cumsum(rng.exponential(size=10_000))
    start = np.concatenate([[0.0], end[:-1]])
    running = rng.integers(0, 50, size=10_000).astype(np.float64)
    points = time_points("a", start, end, {"running": running})
    assert len(points) == MOST_BINS
    weighted = (running * (end - start)).sum() / end[-1]
    assert np.mean([point["running"] for point in points]) == pytest.approx(weighted, rel=0.01)


def test_times_in_which_nothing_ran_have_no_point() -> None:
    start, end = np.array([0.0, 1.0, 99.0]), np.array([1.0, 2.0, 100.0])
    points = time_points("a", start, end, {"running": np.array([3.0, 5.0, 7.0])})
    assert [(p["running"], p["time"]) for p in points] == [
        (4.0, pytest.approx(100 / 6)),
        (7.0, pytest.approx(500 / 6)),
    ]
    nothing = np.array([])
    assert time_points("a", nothing, nothing, {}) == []


def test_the_memory_of_a_run_adds_up() -> None:
    memory = {
        "used": 0.4,
        "reserved": 0.7,
        "reserved_for_later": 0.2,
        "internal_waste": 0.1,
        "external_waste": 0.05,
    }
    points = memory_points("a", memory)
    assert sum(point["share"] for point in points) == pytest.approx(1.0)
    assert points[-1] == {"run": "a", "cause": "free", "share": pytest.approx(0.25), "order": 4}
    assert memory_points("a", {"used": None}) == []


def test_tenants_are_those_with_the_most_requests() -> None:
    tenants = np.array(["b", "a", None, "b"], dtype=object)
    points = tenant_points("r", tenants, np.array([1.0, 4.0, 9.0, 3.0]), np.array([5.0] * 4))
    assert points == [
        {"run": "r", "tenant": "a", "ttft": 4.0, "tokens": 5.0},
        {"run": "r", "tenant": "b", "ttft": 2.0, "tokens": 10.0},
    ]
    many = np.array([str(i) for i in range(50)] + ["7"], dtype=object)
    shown = tenant_points("r", many, np.ones(51), np.ones(51))
    assert len(shown) == MOST_TENANTS
    assert "7" in {point["tenant"] for point in shown}
    assert tenant_points("r", np.array([None], dtype=object), np.ones(1), np.ones(1)) == []


def test_a_run_against_itself_lies_on_the_line() -> None:
    values = np.random.default_rng(3).exponential(size=1000)
    points = quantile_pairs("TTFT", values, values)
    assert len(points) == 99
    assert all(point["measured"] == point["simulated"] for point in points)
    assert quantile_pairs("TTFT", values, np.array([np.nan])) == []
