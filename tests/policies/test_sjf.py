"""`sjf`: order by predicted length, nobody displaced."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.errors import ConfigError
from schedsim.policies import SJF
from schedsim.predictors import Oracle, make_predictor
from tests.core.harness import Jobs, simulate
from tests.policies.pressure import THIRD, Load, loads, run_under_pressure


def test_sjf_admits_the_shortest_predicted_output_first_and_displaces_nobody() -> None:
    jobs = Jobs([4] * 4, [6, 5, 2, 3], arrivals=[0, 1, 1, 2], limits=[90] * 4)
    run = simulate(SJF(), jobs, seats=1, predictor=Oracle())
    assert run.admissions() == [0, 2, 3, 1]
    assert not any(i.preempted for i in run.iterations)


def test_sjf_with_kappa_counts_the_prompt() -> None:
    jobs = Jobs([9, 30, 4], [9, 2, 8], limits=[90] * 3)
    assert simulate(SJF(), jobs, seats=1, predictor=Oracle()).admissions() == [1, 2, 0]
    # 9 + 9, 30 + 2, 4 + 8; then 9 + 36, 30 + 8, 4 + 32
    assert simulate(SJF(kappa=1), jobs, seats=1, predictor=Oracle()).admissions() == [2, 0, 1]
    assert simulate(SJF(kappa=4), jobs, seats=1, predictor=Oracle()).admissions() == [2, 1, 0]


def test_sjf_without_predictions_goes_by_the_output_limit() -> None:
    jobs = Jobs([4] * 3, [2, 3, 4], limits=[30, 20, 10])
    assert simulate(SJF(), jobs, seats=1).admissions() == [2, 1, 0]


def test_sjf_believes_a_wrong_prediction() -> None:
    jobs = Jobs([4] * 40, list(range(1, 41)), limits=[90] * 40)
    predictor = make_predictor("rank,tau=-1", np.random.default_rng(0), range(1, 41))
    assert simulate(SJF(), jobs, seats=1, predictor=predictor).admissions() == list(
        range(39, -1, -1)
    )


@given(outputs=st.lists(st.integers(1, 30), min_size=1, max_size=20))
def test_sjf_on_one_seat_has_the_least_mean_of_all_orders_of_a_burst(outputs: list[int]) -> None:
    jobs = Jobs([1] * len(outputs), outputs, limits=[90] * len(outputs))
    run = simulate(SJF(), jobs, seats=1, predictor=Oracle())
    total = sum(r.finished or 0.0 for r in run.requests.values())
    assert total == sum(np.cumsum(sorted(outputs)))


@THIRD
@given(load=loads(), kappa=st.sampled_from([None, 0.0, 2.0]))
def test_sjf_conserves_everything(load: Load, kappa: float | None) -> None:
    run_under_pressure(SJF(kappa), load)


@pytest.mark.parametrize("kappa", [-1.0, math.inf, math.nan])
def test_sjf_refuses_a_kappa_out_of_range(kappa: float) -> None:
    with pytest.raises(ConfigError, match="policy 'sjf': kappa="):
        SJF(kappa)
