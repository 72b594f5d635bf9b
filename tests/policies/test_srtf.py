"""`srtf`: displacement by remaining output, TRAIL's limit, and what memory takes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.errors import ConfigError
from schedsim.policies import SRTF
from schedsim.predictors import Oracle, make_predictor
from tests.core.harness import Jobs, simulate
from tests.policies.pressure import THIRD, Load, loads, run_under_pressure


def test_srtf_a_shorter_job_displaces_the_longest_remainder() -> None:
    jobs = Jobs([4] * 3, [20, 9, 3], arrivals=[0, 0, 2], limits=[90] * 3)
    run = simulate(SRTF(limit=1.0), jobs, seats=2, predictor=Oracle())
    assert run.iterations[2].preempted == [0]
    assert run.iterations[2].tokens == {1: 1, 2: 4}
    assert run.admissions() == [1, 0, 2, 0]


def test_srtf_an_equal_remainder_displaces_nobody() -> None:
    jobs = Jobs([4] * 2, [8, 6], arrivals=[0, 2], limits=[90] * 2)
    run = simulate(SRTF(limit=1.0), jobs, seats=1, predictor=Oracle())
    assert [r.preemptions for r in run.requests.values()] == [0, 0]


@pytest.mark.parametrize(("arrival", "displaced"), [(1, True), (4, True), (5, False), (9, False)])
def test_srtf_displaces_nobody_that_emitted_its_share(arrival: int, displaced: bool) -> None:
    # At the decision at time t request 0 has emitted t tokens; half of its 10 are the limit.
    jobs = Jobs([4] * 2, [10, 1], arrivals=[0, arrival], limits=[90] * 2)
    run = simulate(SRTF(limit=0.5), jobs, seats=1, predictor=Oracle())
    assert (run.requests[0].preemptions == 1) is displaced


def test_srtf_with_limit_0_is_shortest_job_first() -> None:
    jobs = Jobs([4] * 4, [6, 5, 2, 3], arrivals=[0, 1, 1, 2], limits=[90] * 4)
    run = simulate(SRTF(limit=0.0), jobs, seats=1, predictor=Oracle())
    assert run.admissions() == [0, 2, 3, 1]


def test_srtf_who_outlives_its_prediction_is_not_displaced() -> None:
    predictor = make_predictor("rank,tau=-1", np.random.default_rng(0), [2, 30])
    jobs = Jobs([4] * 2, [30, 2], arrivals=[0, 5], limits=[90] * 2)  # told 2 and 30
    run = simulate(SRTF(limit=1.0), jobs, seats=1, predictor=predictor)
    assert [r.preemptions for r in run.requests.values()] == [0, 0]


def test_srtf_displaces_for_memory_only_if_that_makes_enough_room() -> None:
    jobs = Jobs([12, 8, 24, 28], [28, 4, 3, 2], arrivals=[0, 0, 3, 3], limits=[90] * 4)
    run = simulate(SRTF(limit=1.0), jobs, blocks=10, predictor=Oracle(), budget=100)
    first = run.iterations[3]
    assert first.preempted == [0], "its 4 and 3 free blocks are what 3 needs"
    assert first.admitted == [3]
    jobs = Jobs([12, 8, 24, 32], [28, 4, 3, 2], arrivals=[0, 0, 3, 3], limits=[90] * 4)
    run = simulate(SRTF(limit=1.0), jobs, blocks=10, predictor=Oracle(), budget=100)
    assert run.iterations[3].preempted == [], "8 blocks are not to be had"


def test_srtf_memory_takes_the_longest_remainder() -> None:
    run = simulate(SRTF(), Jobs([4] * 3, [6, 13, 6], limits=[90] * 3), blocks=4, predictor=Oracle())
    assert next(i for i in run.iterations if i.preempted).preempted == [1]


def test_srtf_by_swap_computes_nothing_again() -> None:
    jobs = Jobs([4] * 3, [20, 9, 3], arrivals=[0, 0, 2], limits=[90] * 3)
    run = simulate(
        SRTF(limit=1.0, preemption="swap"),
        jobs,
        seats=2,
        predictor=Oracle(),
        memory="paged,host_blocks=100",
    )
    assert run.requests[0].preemptions == 1
    assert run.requests[0].recomputed_tokens == 0


@THIRD
@given(load=loads(), limit=st.sampled_from([0.0, 0.3, 1.0]), swaps=st.booleans())
def test_srtf_conserves_everything(load: Load, limit: float, swaps: bool) -> None:
    policy = SRTF(limit, preemption="swap" if swaps else "recompute")
    run_under_pressure(policy, load)
    policy.check()


@pytest.mark.parametrize("limit", [-0.1, 1.1, float("nan")])
def test_srtf_refuses_a_limit_out_of_range(limit: float) -> None:
    with pytest.raises(ConfigError, match="policy 'srtf': limit="):
        SRTF(limit)
