"""Queueing theory through the engine that simulates everything else."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from tests.theory.queueing import constant_step, run_queue, shared_step, sojourns

Floats = npt.NDArray[np.float64]
Sample = Callable[[np.random.Generator, int], npt.NDArray[np.int64]]


@given(
    gaps=st.lists(st.floats(0.0, 5.0), min_size=1, max_size=60),
    tokens=st.lists(st.integers(1, 12), min_size=60, max_size=60),
    step=st.sampled_from([0.05, 0.3, 1.0]),
)
def test_one_seat_equals_the_lindley_recursion(
    gaps: list[float], tokens: list[int], step: float
) -> None:
    arrivals = np.cumsum([0.0, *gaps[1:]])
    service = np.array(tokens[: len(gaps)]) * step
    wait = 0.0
    expected = []
    for index, duration in enumerate(service):
        if index:
            gap = arrivals[index] - arrivals[index - 1]
            wait = max(0.0, wait + service[index - 1] - gap)
        expected.append(wait + duration)
    result = run_queue(arrivals, tokens[: len(gaps)], constant_step(step), seats=1)
    np.testing.assert_allclose(sojourns(result), expected, rtol=0, atol=1e-9)


def replicated_mean(
    load: float, sample: Sample, mean_tokens: float, *, shared: bool, jobs: int, runs: int
) -> tuple[float, float]:
    """Mean sojourn over replications and the half-width of its 99 % confidence interval."""
    step = 1.0 / mean_tokens  # a job takes 1 s alone, on average
    means = []
    for seed in range(runs):
        rng = np.random.default_rng(1000 + seed)
        arrivals = np.cumsum(rng.exponential(1.0 / load, jobs))
        tokens = sample(rng, jobs)
        cost = shared_step(step) if shared else constant_step(step)
        result = run_queue(arrivals - arrivals[0], tokens, cost, seats=jobs if shared else 1)
        means.append(float(sojourns(result)[jobs // 5 :].mean()))
    half_width = stats.t.ppf(0.995, runs - 1) * np.std(means, ddof=1) / np.sqrt(runs)
    return float(np.mean(means)), float(half_width)


def two_point(rng: np.random.Generator, count: int) -> npt.NDArray[np.int64]:
    """2 tokens in 7 of 8 cases, 18 in the eighth: mean 4, second moment 44."""
    return np.where(rng.random(count) < 0.125, 18, 2)


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_m_d_1_mean_sojourn(load: float) -> None:
    mean, half_width = replicated_mean(
        load,
        lambda rng, count: np.ones(count, dtype=np.int64),
        1.0,
        shared=False,
        jobs=8000,
        runs=16,
    )
    theory = 1.0 + load / (2.0 * (1.0 - load))
    assert abs(mean - theory) <= half_width
    assert half_width < 0.05 * theory


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_m_g_1_mean_sojourn(load: float) -> None:
    mean, half_width = replicated_mean(load, two_point, 4.0, shared=False, jobs=6000, runs=16)
    second_moment = 44.0 / 16.0  # of the service time in s
    theory = 1.0 + load * second_moment / (2.0 * (1.0 - load))
    assert abs(mean - theory) <= half_width
    assert half_width < 0.12 * theory


@pytest.mark.parametrize("load", [0.5, 0.8])
def test_processor_sharing_mean_sojourn_is_insensitive_to_the_law(load: float) -> None:
    def quantised(rng: np.random.Generator, count: int) -> npt.NDArray[np.int64]:
        return 30 * two_point(rng, count)  # fine steps: the fluid limit

    mean, half_width = replicated_mean(load, quantised, 120.0, shared=True, jobs=3000, runs=16)
    theory = 1.0 / (1.0 - load)
    assert abs(mean - theory) <= half_width
    assert half_width < 0.15 * theory


@pytest.mark.parametrize("seats", [1, 3, 50])
def test_littles_law_from_empty_to_empty(seats: int) -> None:
    """The number in the system comes from the step log alone, the sojourns from the requests."""
    rng = np.random.default_rng(5)
    arrivals = np.cumsum(rng.exponential(0.4, 400))
    arrivals -= arrivals[0]
    result = run_queue(arrivals, rng.integers(1, 20, 400), constant_step(0.05), seats)
    steps = result.steps
    present = (steps["running"] + steps["waiting"]).to_numpy()
    seen = steps["last_arrival_seen"].to_numpy() + 1  # requests that had arrived
    departed = np.append((seen - present)[1:], len(arrivals))  # after each iteration
    ends = np.array([end[-1] for end in steps["end"]])
    departures = np.repeat(ends, np.diff(departed, prepend=0))
    times = np.concatenate([arrivals, departures])
    change = np.concatenate([np.ones(len(arrivals)), -np.ones(len(departures))])
    order = np.argsort(times, kind="stable")
    number = np.cumsum(change[order])
    integral = float(np.sum(number[:-1] * np.diff(times[order])))
    horizon = float(ends[-1])
    rate = len(arrivals) / horizon
    little = rate * float(sojourns(result).mean())
    assert integral / horizon == pytest.approx(little, rel=1e-12)
