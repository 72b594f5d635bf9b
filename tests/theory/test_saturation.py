"""The fluid limit's knee, and what is left of the targets beyond it."""

import numpy as np
import pytest

from schedsim.policies import EDF, VTC, Policy, QoServe
from tests.theory.engine import affine_step, make_trace, run_engine

BASE, TOKEN = 0.010, 1e-4
PROMPT, OUTPUT = 30, 40


def knee(seats: int) -> float:
    """Requests a second that `seats` of them at once come to.

    A request runs in OUTPUT iterations and computes PROMPT + OUTPUT - 1 tokens.
    """
    tokens = seats * (PROMPT + OUTPUT - 1) / OUTPUT
    return seats / OUTPUT / (BASE + TOKEN * tokens)


@pytest.mark.parametrize("bound_by", ["seats", "memory"])
def test_the_backlog_grows_on_one_side_of_the_knee_only(bound_by: str) -> None:
    limits = {"seats": 20} if bound_by == "seats" else {"blocks": 20 * (PROMPT + OUTPUT - 1)}

    def run(load: float) -> tuple[float, float]:
        """Mean wait in the third and in the last quarter of the arrivals."""
        count = 2400
        rng = np.random.default_rng(3)
        arrivals = np.cumsum(rng.exponential(1.0 / (load * knee(20)), count))
        trace = make_trace(arrivals, np.full(count, PROMPT), np.full(count, OUTPUT))
        policy = VTC(reserve="output")
        result = run_engine(policy, trace, affine_step(BASE, TOKEN), block_size=1, **limits)
        wait = result.requests["queue_s"].to_numpy()
        return float(wait[1200:1800].mean()), float(wait[1800:].mean())

    third, last = run(0.9)
    assert last < 0.5, "below the knee the wait stays short"
    third, last = run(1.1)
    # At load r the line grows by r - 1 of what is served: a wait of (r - 1)/r · arrival time.
    apart = 600 / (1.1 * knee(20))
    assert (last - third) / apart == pytest.approx(0.1, rel=0.35)


@pytest.mark.parametrize("bound_by", ["seats", "memory"])
def test_throughput_beyond_the_knee_is_that_of_the_knee(bound_by: str) -> None:
    limits = {"seats": 20} if bound_by == "seats" else {"blocks": 20 * (PROMPT + OUTPUT - 1)}
    count = 2000
    trace = make_trace(np.zeros(count), np.full(count, PROMPT), np.full(count, OUTPUT))
    policy = VTC(reserve="output")
    result = run_engine(policy, trace, affine_step(BASE, TOKEN), block_size=1, **limits)
    rate = count / result.summary["makespan_s"]
    assert rate == pytest.approx(knee(20), rel=0.01)


def violations(policy: Policy, load: float) -> float:
    """The share of requests that come too late for their targets, at a multiple of the knee."""
    count = 3000
    rng = np.random.default_rng(11)
    arrivals = np.cumsum(rng.exponential(1.0 / (load * knee(64)), count))
    prompts = rng.integers(5, 2 * PROMPT - 5, count, endpoint=True)
    trace = make_trace(arrivals, prompts, np.full(count, OUTPUT))
    result = run_engine(
        policy, trace, affine_step(BASE, TOKEN), seats=64, ttft_slo=1.0, tpot_slo=0.05
    )
    requests = result.requests
    late = (requests["ttft_s"] > 1.0) | (requests["tpot_s"] > 0.05)
    return float(late.mean())


def test_qoserve_degrades_gracefully_where_edf_collapses() -> None:
    assert violations(EDF(), 0.8) == 0.0
    assert violations(QoServe(), 0.8) == 0.0
    edf = [violations(EDF(), load) for load in (1.15, 1.5)]
    qoserve = [violations(QoServe(), load) for load in (1.15, 1.5)]
    assert min(edf) > 0.8, "one late request makes the next one late"
    # Nobody can serve more than 1/load in time.
    assert qoserve[0] < 1 - 1 / 1.15 + 0.03
    assert qoserve[1] < 1 - 1 / 1.5 + 0.03


def test_it_is_relegation_that_keeps_qoserve_from_collapsing() -> None:
    assert violations(QoServe(relegation=False), 1.5) > violations(QoServe(), 1.5) + 0.2
