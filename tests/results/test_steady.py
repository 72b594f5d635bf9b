"""Where the warm-up ends, and what counts as stable."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.request import Request, Status
from schedsim.results import RequestLog, RunRecord, StepLog
from schedsim.results.columns import RequestColumns
from schedsim.results.steady import find_steady, is_stable, mser_truncation
from schedsim.scheduler import TokenLog
from tests.results.runs import make_trace


def single_server(load: float, count: int, seed: int) -> RequestColumns:
    """A first-come first-served queue with exponential service of mean 1."""
    generator = np.random.default_rng(seed)
    arrivals = np.cumsum(generator.exponential(1 / load, count))
    services = generator.exponential(1.0, count)
    requests, free = {}, 0.0
    for row in range(count):
        start = max(free, arrivals[row])
        free = start + services[row]
        requests[row] = Request(row, arrivals[row], 1, 1, status=Status.FINISHED)
        requests[row].released = requests[row].arrival
        requests[row].admitted, requests[row].finished = start, free
    ones = [1] * count
    return RequestColumns.from_record(
        RunRecord(
            make_trace(list(arrivals), ones, ones),
            RequestLog(requests.values()),
            StepLog(),
            TokenLog(),
            1,
            1,
            0,
        )
    )


@pytest.mark.parametrize("seed", range(5))
def test_an_overloaded_server_is_not_stable(seed: int) -> None:
    steady = find_steady(single_server(1.2, 4000, seed))
    assert steady is not None
    assert not steady.stable


@pytest.mark.parametrize("load", [0.3, 0.7])
@pytest.mark.parametrize("seed", range(5))
def test_an_underloaded_server_is_stable(load: float, seed: int) -> None:
    steady = find_steady(single_server(load, 4000, seed))
    assert steady is not None
    assert steady.stable


def test_the_window_ends_at_the_last_arrival_and_starts_in_its_first_half() -> None:
    requests = single_server(0.7, 500, seed=1)
    steady = find_steady(requests)
    assert steady is not None
    first, last = requests.arrival[0], requests.arrival[-1]
    assert steady.window.end == last
    assert first <= steady.window.start <= first + (last - first) / 2


def test_there_is_no_window_when_all_arrive_at_once() -> None:
    trace = make_trace([0.0, 0.0], [1, 1], [1, 1])
    record = RunRecord(trace, RequestLog(), StepLog(), TokenLog(), 1, 1, 0.0)
    assert find_steady(RequestColumns.from_record(record)) is None
    requests = {row: Request(row, 0.0, 1, 1, released=0.0) for row in range(2)}
    record = RunRecord(trace, RequestLog(requests.values()), StepLog(), TokenLog(), 1, 1, 0.0)
    assert find_steady(RequestColumns.from_record(record)) is None


@given(st.lists(st.integers(0, 50), min_size=4, max_size=60))
def test_mser_cuts_where_the_standard_error_is_least(series: list[int]) -> None:
    values = np.array(series, dtype=np.float64)
    errors = [values[cut:].var() / len(values[cut:]) for cut in range(len(values) // 2 + 1)]
    found = mser_truncation(values)
    assert errors[found] == pytest.approx(min(errors), abs=1e-9)


def test_mser_cuts_a_ramp_before_a_plateau() -> None:
    series = np.concatenate([np.arange(20.0), np.full(80, 20.0)])
    assert mser_truncation(series) == 20


def test_a_small_growth_is_noise_and_a_long_one_a_trend() -> None:
    assert is_stable(np.full(100, 7.0), 1000)
    assert is_stable(np.linspace(30, 40, 100), 100)  # within 3 sqrt(35)
    assert not is_stable(np.linspace(30, 90, 100), 1000)
    assert is_stable(np.linspace(30, 90, 100), 10_000)  # 0.6 % of what arrived
    assert is_stable(np.linspace(90, 30, 100), 100)
