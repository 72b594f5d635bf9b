"""`nested-wait`: quotas, segments that open in order, who is held, and that all come to an end."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.errors import ConfigError
from schedsim.policies import NestedWait
from schedsim.request import Status
from tests.core.harness import Jobs, Run, simulate
from tests.policies.pressure import THIRD, Load, loads, run_under_pressure


def quotas(policy: NestedWait) -> list[int]:
    return policy._quotas


def running(run: Run) -> list[list[int]]:
    return [sorted(i.tokens) for i in run.iterations]


def test_nested_wait_quotas_are_in_proportion_to_who_reaches_a_segment() -> None:
    # The authors' example: lengths 100, 200, 300 at rates 6 : 4 : 2.
    assert quotas(NestedWait("100/200", "1/0.5/0.2", in_flight=1700)) == [10, 5, 2]
    assert quotas(NestedWait("100/200", "1/0.5/0.2", in_flight=100)) == [1, 1, 1], "at least one"


def test_nested_wait_learns_from_who_has_finished_how_far_requests_get() -> None:
    policy = NestedWait("4/8", in_flight=400, max_wait=0.0)
    lengths = [3] * 20 + [6] * 15 + [12] * 5
    simulate(policy, Jobs([4] * 40, lengths, limits=[90] * 40))
    reach = [1.0, 21 / 41, 6 / 41]
    assert quotas(policy) == [int(400 * r / (4 * sum(reach))) for r in reach]


def test_nested_wait_begins_when_the_quota_stands_at_the_first_stage() -> None:
    # The quota is 3 for stages 0 to 3. The first three begin at 5 s, and are at stage 1 when the
    # next three arrive at 9 s; then all go on together, three at each stage.
    arrivals = [0, 1, 5, 7, 8, 9]
    policy = NestedWait("4", "1/1", in_flight=24, max_wait=50.0)
    run = simulate(policy, Jobs([4] * 6, [4] * 6, arrivals, limits=[9] * 6))
    assert [(i.start, sorted(i.tokens)) for i in run.iterations[:2]] == [
        (5.0, [0, 1, 2]),
        (9.0, [0, 1, 2, 3, 4, 5]),
    ]
    held = run.iterations[1].blocks
    assert len(held) == 6, "who is held keeps its blocks"


def test_nested_wait_the_last_partial_batch_runs_after_the_longest_wait() -> None:
    policy = NestedWait("4", "1/1", in_flight=24, max_wait=6.0)
    run = simulate(policy, Jobs([4] * 2, [3, 3], [0, 1], limits=[9] * 2))
    # Request 0 opens the first segment for both at 6 s. Held since 7 s they are free from 13 s on.
    assert [(i.start, sorted(i.tokens)) for i in run.iterations] == [
        (6.0, [0, 1]),
        (13.0, [0, 1]),
        (14.0, [0, 1]),
    ]


def test_nested_wait_a_segment_opens_when_enough_have_come_to_its_beginning() -> None:
    # A new request a second keeps the first segment, stages 0 and 1, open. Quotas are 4 and 2:
    # the second segment opens whenever two stand at stage 2.
    policy = NestedWait("2", "1/0.5", in_flight=12, max_wait=100.0)
    assert quotas(policy) == [4, 2]
    jobs = Jobs([1] * 8, [3, 1, 1, 1, 3, 1, 1, 1], [0] * 4 + [2] * 4, limits=[9] * 8)
    run = simulate(policy, jobs)
    # At 1 s nobody waits, so request 0 is held at stage 1; at 2 s four more begin and it goes on.
    assert running(run)[:2] == [[0, 1, 2, 3], [0, 4, 5, 6, 7]]
    assert run.iterations[1].start == 2.0
    # Then both long ones are alone and held apart; each is freed after 100 s.
    assert run.requests[0].finished == 104.0
    assert run.requests[4].finished == 105.0


def test_nested_wait_takes_no_more_of_a_stage_than_its_quota() -> None:
    policy = NestedWait("4", "1/1", in_flight=16, max_wait=100.0)  # 2 a stage
    run = simulate(policy, Jobs([4] * 6, [4] * 6, limits=[9] * 6), seats=6)
    assert running(run)[:3] == [[0, 1], [0, 1, 2, 3], [0, 1, 2, 3, 4, 5]]


def test_nested_wait_without_a_wait_is_first_come_first_served() -> None:
    jobs = Jobs([4] * 3, [5, 2, 3], [0, 1, 2], limits=[9] * 3)
    run = simulate(NestedWait(max_wait=0.0), jobs, seats=2)
    assert [r.finished for r in run.requests.values()] == [5.0, 3.0, 6.0]


def test_nested_wait_a_stream_of_requests_is_served_in_full_batches() -> None:
    """Batches of the first stage are whole quotas while requests keep coming."""
    rng = np.random.default_rng(6)
    count = 300
    lengths = np.where(rng.random(count) < 0.5, 4, 8).tolist()
    arrivals = np.cumsum(rng.exponential(0.2, count)).tolist()
    policy = NestedWait("4", "1/0.5", in_flight=30, max_wait=1000.0)  # quotas 5 and 2
    run = simulate(
        policy, Jobs([2] * count, lengths, arrivals, limits=[9] * count), seats=64, budget=500
    )
    admitted = [len(i.admitted) for i in run.iterations if i.admitted]
    assert set(admitted[:-1]) == {5}
    assert all(r.status is Status.FINISHED for r in run.requests.values())


@THIRD
@given(
    load=loads(),
    boundaries=st.sampled_from(["1", "5/20", "3/4/30"]),
    in_flight=st.sampled_from([1, 40, 200]),
    wait=st.sampled_from([0.0, 3.0, 50.0]),
)
def test_nested_wait_conserves_everything(
    load: Load, boundaries: str, in_flight: int, wait: float
) -> None:
    policy = NestedWait(boundaries, in_flight=in_flight, max_wait=wait)
    run_under_pressure(policy, load)
    assert not policy._freed


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"boundaries": ""}, "boundaries='' must be rising"),
        ({"boundaries": "0/5"}, "boundaries='0/5' must be rising"),
        ({"boundaries": "9/5"}, "boundaries='9/5' must be rising"),
        ({"boundaries": "9.5"}, "boundaries='9.5' must be rising"),
        ({"boundaries": "9/x"}, "boundaries='9/x' must be rising"),
        ({"boundaries": "9/inf"}, "boundaries='9/inf' must be rising"),
        ({"reach": "1/0.5"}, "reach='1/0.5' must be 3 falling shares"),
        ({"reach": "0.5/1/1"}, "reach='0.5/1/1' must be 3 falling shares"),
        ({"reach": "1/1/0"}, "reach='1/1/0' must be 3 falling shares"),
        ({"in_flight": 0}, "in_flight=0 is below 1"),
        ({"max_wait": float("inf")}, "max_wait=inf must be finite"),
    ],
)
def test_nested_wait_refuses_parameters_out_of_range(
    parameters: dict[str, object], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        NestedWait(**parameters)  # type: ignore[arg-type]
