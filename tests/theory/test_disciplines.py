"""Disciplines of one server: SRPT and processor sharing against references on the same paths."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedsim.costs.linear import LinearCost
from schedsim.policies import LAS, LTR, MLFQ, POLICIES, SRTF, Orca, Policy, Priority
from schedsim.predictors import Oracle
from tests.theory.queueing import constant_step, run_queue, shared_step, sojourns
from tests.theory.references import first_come_first_served, processor_sharing, srpt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

TOKEN = 0.01
"""Seconds a token: services are of about a hundred, so that steps are close to continuous time."""


def exponential(rng: np.random.Generator, count: int) -> Ints:
    return np.maximum(rng.exponential(100.0, count).astype(np.int64), 1)


def heavy(rng: np.random.Generator, count: int) -> Ints:
    """Mean about 100 with a squared coefficient of variation of about 6."""
    return np.maximum(rng.lognormal(3.6, 1.4, count).astype(np.int64), 1)


def path(
    sample: Callable[[np.random.Generator, int], Ints], load: float, count: int, seed: int
) -> tuple[Floats, Ints]:
    rng = np.random.default_rng(seed)
    tokens = sample(rng, count)
    arrivals = np.cumsum(rng.exponential(tokens.mean() * TOKEN / load, count))
    return arrivals - arrivals[0], tokens


@pytest.mark.parametrize("load", [0.5, 0.9])
@pytest.mark.parametrize("sample", [exponential, heavy])
def test_srtf_with_exact_lengths_is_srpt(
    sample: Callable[[np.random.Generator, int], Ints], load: float
) -> None:
    arrivals, tokens = path(sample, load, 600, 1)
    policy = SRTF(limit=1.0, preemption="swap")
    result = run_queue(arrivals, tokens, constant_step(TOKEN), 1, policy, Oracle())
    expected = srpt(arrivals, tokens * TOKEN)
    assert sojourns(result).mean() == pytest.approx(expected.mean(), rel=0.005)
    assert result.requests["recomputed_tokens"].sum() == 0
    assert result.requests["preemptions"].sum() > 20
    fcfs = first_come_first_served(arrivals.tolist(), (tokens * TOKEN).tolist())
    assert expected.mean() < 0.9 * np.mean(fcfs), "the reference differs from no order at all"


@pytest.mark.parametrize("load", [0.5, 0.8])
@pytest.mark.parametrize("sample", [exponential, heavy])
def test_a_step_time_per_request_is_processor_sharing(
    sample: Callable[[np.random.Generator, int], Ints], load: float
) -> None:
    arrivals, tokens = path(sample, load, 500, 2)
    result = run_queue(arrivals, tokens, shared_step(TOKEN), len(tokens))
    expected = processor_sharing(arrivals, tokens * TOKEN)
    assert sojourns(result).mean() == pytest.approx(expected.mean(), rel=0.005)


def test_processor_sharing_reference_by_hand() -> None:
    # Alone 1 s, then two share: 0 has 2 left, 1 has 1: 1 leaves at 3, 0 at 4.
    assert processor_sharing(np.array([0.0, 1.0]), np.array([3.0, 1.0])).tolist() == [4.0, 2.0]
    assert srpt(np.array([0.0, 1.0]), np.array([3.0, 1.0])).tolist() == [4.0, 1.0]


TUNED: dict[str, Callable[[int], Policy]] = {
    "srtf": lambda _: SRTF(limit=0.3, preemption="swap"),
    "priority": lambda n: Priority(float(n), displaces=True, preemption="swap"),
    "las": lambda n: LAS(1 + n, preemption="swap"),
    "mlfq": lambda n: MLFQ(500.0 * (1 + n), None),
    "ltr": lambda n: LTR(1 + n, 1 + n),
    "orca": lambda _: Orca("limit"),  # the longest context has no room
}
"""Policies with parameters to be drawn; all others are taken as they are."""


def other(name: str, number: int) -> Policy:
    return TUNED[name](number) if name in TUNED else POLICIES[name]()


@pytest.mark.parametrize("name", sorted(POLICIES))
@settings(max_examples=max(8, settings.default.max_examples // 6))
@given(
    gaps=st.lists(st.integers(0, 12), min_size=2, max_size=25),
    tokens=st.lists(st.integers(1, 15), min_size=25, max_size=25),
    number=st.integers(0, 5),
)
def test_srpt_is_no_worse_than_any_other_policy_on_one_seat(
    name: str, gaps: list[int], tokens: list[int], number: int
) -> None:
    """Arrivals at whole steps, where SRPT is the optimum of all schedules in steps."""
    arrivals = np.cumsum([0, *gaps[1:]]).astype(np.float64)
    lengths = np.array(tokens[: len(gaps)])

    def mean(policy: Policy) -> float:
        result = run_queue(arrivals, lengths, constant_step(1.0), 1, policy, Oracle())
        assert (result.requests["status"] == "finished").all()
        return float(sojourns(result).mean())

    best = mean(SRTF(limit=1.0, preemption="swap"))
    assert best <= mean(other(name, number)) + 1e-9
    assert best == pytest.approx(srpt(arrivals, lengths.astype(np.float64)).mean(), rel=1e-12)


def trail_means(prefill_token_ms: float, preemption: str, limits: list[float]) -> list[float]:
    """Mean sojourns under `srtf`, 4 seats, 10 ms an iteration, heavy-tailed outputs."""
    rng = np.random.default_rng(0)
    tokens = np.clip(rng.lognormal(3.6, 1.4, 1000).astype(np.int64), 1, 3000)
    arrivals = np.cumsum(rng.exponential(0.33, 1000))
    cost = LinearCost(10.0, prefill_token_ms, 0.1, 0.0, 0.0)
    means = []
    for limit in limits:
        policy = SRTF(limit, preemption="swap" if preemption == "swap" else "recompute")
        result = run_queue(arrivals - arrivals[0], tokens, cost, 4, policy, Oracle())
        means.append(float(sojourns(result).mean()))
    return means


def test_latency_has_a_minimum_in_trails_limit_where_preemption_costs() -> None:
    """Late preemptions are not worth what they recompute, and dearer ones are worth less."""
    none, early, later, latest = trail_means(0.3, "recompute", [0.0, 0.2, 0.6, 1.0])
    assert early < 0.9 * none
    assert early < 0.9 * later < 0.9 * latest
    none, early, later, latest = trail_means(0.05, "recompute", [0.0, 0.2, 0.6, 1.0])
    assert later < early < 0.9 * none
    assert later < latest


def test_latency_only_falls_in_trails_limit_where_preemption_is_free() -> None:
    means = trail_means(0.3, "swap", [0.0, 0.2, 0.6, 1.0])
    assert means == sorted(means, reverse=True)
