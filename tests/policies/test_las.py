"""`las`: quanta, and that equals do not displace each other."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.errors import ConfigError
from schedsim.policies import LAS
from tests.core.harness import Jobs, simulate
from tests.policies.pressure import THIRD, Load, loads, run_under_pressure


def turns(quantum: int, outputs: list[int], arrivals: list[int]) -> list[int]:
    """Who runs in each iteration on one seat."""
    jobs = Jobs([1] * len(outputs), outputs, arrivals=arrivals, limits=[90] * len(outputs))
    run = simulate(LAS(quantum), jobs, seats=1)
    return [request for i in run.iterations for request in i.tokens]


def test_las_serves_whole_quanta_in_turn() -> None:
    assert turns(2, [5, 3, 2], [0, 0, 0]) == [0, 0, 1, 1, 2, 2, 0, 0, 1, 0]


def test_las_a_new_request_displaces_who_has_had_a_quantum() -> None:
    assert turns(3, [6, 2], [0, 4]) == [0, 0, 0, 0, 1, 1, 0, 0]


def test_las_nobody_is_displaced_inside_its_quantum_by_an_equal() -> None:
    assert turns(4, [4, 4], [0, 1]) == [0] * 4 + [1] * 4


def test_las_who_has_the_seat_goes_on_when_all_are_equal() -> None:
    assert turns(1, [3, 3, 3], [0, 0, 0]) == [0, 1, 2, 2, 0, 1, 1, 0, 2]


def test_las_memory_takes_who_has_had_most() -> None:
    jobs = Jobs([4] * 3, [9, 9, 9], arrivals=[0, 4, 4], limits=[90] * 3)
    run = simulate(LAS(2), jobs, blocks=5)
    assert next(i for i in run.iterations if i.preempted).preempted == [0]


@THIRD
@given(load=loads(), quantum=st.sampled_from([1, 3, 20]), swaps=st.booleans())
def test_las_conserves_everything(load: Load, quantum: int, swaps: bool) -> None:
    policy = LAS(quantum, preemption="swap" if swaps else "recompute")
    run_under_pressure(policy, load)
    policy.check()


def test_las_refuses_an_empty_quantum() -> None:
    with pytest.raises(ConfigError, match="policy 'las': quantum=0 is below 1"):
        LAS(0)
