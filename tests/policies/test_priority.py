"""`priority`: order, aging and displacement."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.config import make_settings
from schedsim.errors import ConfigError
from schedsim.policies import Priority
from schedsim.testing.running import run_watched
from schedsim.testing.strategies import STEP_TIME
from tests.core.harness import Jobs, simulate
from tests.policies.pressure import THIRD, Load, loads, run_under_pressure


def test_priority_admits_the_most_urgent_and_displaces_nobody_unasked() -> None:
    jobs = Jobs([4] * 4, [6, 2, 2, 2], arrivals=[0, 1, 1, 2], priorities=[3, 2, 1, 0])
    assert simulate(Priority(), jobs, seats=1).admissions() == [0, 3, 2, 1]


def test_priority_displaces_the_least_urgent_where_asked() -> None:
    jobs = Jobs([4] * 3, [6, 6, 2], arrivals=[0, 0, 1], priorities=[1, 2, 0])
    run = simulate(Priority(displaces=True), jobs, seats=2)
    assert run.iterations[1].preempted == [1]
    assert run.iterations[1].admitted == [2]
    equal = Jobs([4] * 3, [6, 6, 2], arrivals=[0, 0, 1], priorities=[1, 1, 1])
    run = simulate(Priority(displaces=True), equal, seats=2)
    assert run.admissions() == [0, 1, 2]


def test_priority_ages_linearly() -> None:
    # At 0.5 levels a second the 6 s by which request 1 came earlier make up for 3 levels.
    jobs = Jobs([4] * 3, [9, 2, 2], arrivals=[0, 1, 7], priorities=[0, 3, 0])
    assert simulate(Priority(), jobs, seats=1).admissions() == [0, 2, 1]
    assert simulate(Priority(aging=0.4), jobs, seats=1).admissions() == [0, 2, 1]
    assert simulate(Priority(aging=0.5), jobs, seats=1).admissions() == [0, 1, 2]


def test_priority_without_aging_starves_and_with_aging_does_not() -> None:
    urgent = 40
    jobs = Jobs(
        [4] * (urgent + 2),
        [3] * (urgent + 2),
        arrivals=[0, 0, *range(2, urgent * 3 + 2, 3)],
        priorities=[0, 5, *[0] * urgent],
    )
    starved = simulate(Priority(), jobs, seats=1)
    assert starved.admissions()[-1] == 1
    fair = simulate(Priority(aging=0.25), jobs, seats=1)
    assert fair.requests[1].admitted is not None
    assert fair.requests[1].admitted <= 5 / 0.25 + 3 + 3


def test_priority_promises_no_more_than_it_keeps_while_an_admission_is_in_flight() -> None:
    """Who was admitted by the batch in flight can be displaced as soon as its token is there."""
    jobs = Jobs([4] * 3, [1, 2, 2], arrivals=[0, 0, 0.01], priorities=[0, 2, 1])
    settings = make_settings(
        blocks=50,
        block_size=4,
        max_seqs=1,
        token_budget=64,
        max_model_len=64,
        decision_lag=1,
        step_time=STEP_TIME,
    )
    ran = run_watched(lambda: Priority(displaces=True), jobs.trace(), settings)
    assert ran.violation is None
    assert any(record.preempted for record in ran.records)


@THIRD
@given(load=loads(), aging=st.sampled_from([0.0, 0.1]), displaces=st.booleans())
def test_priority_conserves_everything(load: Load, aging: float, displaces: bool) -> None:
    policy = Priority(aging, displaces)
    run_under_pressure(policy, load)
    policy.check()


@pytest.mark.parametrize("aging", [-1.0, float("inf"), float("nan")])
def test_priority_refuses_an_aging_out_of_range(aging: float) -> None:
    with pytest.raises(ConfigError, match="policy 'priority': aging="):
        Priority(aging)
