"""`mlfq`: skip-join, demotion, promotion, and swaps, in iterations of one second."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.costs.linear import LinearCost
from schedsim.errors import ConfigError
from schedsim.policies import MLFQ
from schedsim.scheduler import Step
from tests.core.harness import Jobs, Run, simulate
from tests.policies.pressure import THIRD, Load, loads, run_under_pressure

HOST = "paged,host_blocks=1000"
PER_TOKEN = LinearCost(0.0, 1000.0, 1000.0, 0.0, 0.0)  # 1 s a token of prefill or decode
"""Prefill of n tokens takes n seconds."""


def on_one_seat(policy: MLFQ, jobs: Jobs, cost: LinearCost | None = None) -> Run:
    if cost is None:
        return simulate(policy, jobs, seats=1, memory=HOST)
    return simulate(policy, jobs, seats=1, memory=HOST, cost=cost)


def turns(run: Run) -> list[int]:
    return [request for i in run.iterations for request in i.tokens]


def test_mlfq_demotes_who_was_served_for_longer_than_the_quantum() -> None:
    # Quanta of 2, 4 and 8 s, each overrun by a second; who is demoted goes on before equals.
    jobs = Jobs([1] * 2, [9, 9], limits=[90] * 2)
    run = on_one_seat(MLFQ(2000.0, None), jobs)
    assert turns(run) == [0] * 3 + [1] * 3 + [1] * 5 + [0] * 5 + [0] + [1]
    assert run.requests[0].recomputed_tokens == 0, "swapped"


def test_mlfq_a_long_prompt_skips_the_queues_that_its_prefill_exceeds() -> None:
    # Prefills of 9 and 2 s with quanta of 2, 4, 8 and 16 s: queue 3 and queue 0.
    jobs = Jobs([9, 2, 2], [2, 2, 2], arrivals=[0, 0, 0], limits=[90] * 3)
    assert on_one_seat(MLFQ(2000.0, None), jobs, PER_TOKEN).admissions()[:2] == [1, 2]
    # It is displaced by a short one that arrives during its prefill, but only when that is done.
    jobs = Jobs([9, 2], [5, 2], arrivals=[0, 3], limits=[90] * 2)
    run = on_one_seat(MLFQ(2000.0, None), jobs, PER_TOKEN)
    assert [(i.start, i.preempted) for i in run.iterations if i.preempted] == [(9.0, [0])]


def test_mlfq_equal_queues_do_not_displace_each_other() -> None:
    jobs = Jobs([1] * 2, [5, 5], arrivals=[0, 1], limits=[90] * 2)
    assert turns(on_one_seat(MLFQ(9000.0, None), jobs)) == [0] * 5 + [1] * 5


class Noted(MLFQ):
    """Writes down when request 0 comes to a queue."""

    def __post_init__(self) -> None:
        MLFQ.__post_init__(self)
        self.queues: dict[int, float] = {}

    def schedule(self, step: Step) -> None:
        MLFQ.schedule(self, step)
        self.queues.setdefault(self._places[0].level, step.now)


def test_mlfq_a_quantum_stands_still_during_a_preemption() -> None:
    # In queue 1 from 3 s on, displaced from 5 to 6 s, at 8 s it has had its 4 s, then overruns.
    policy = Noted(2000.0, None)
    on_one_seat(policy, Jobs([1] * 2, [12, 1], arrivals=[0, 5], limits=[90] * 2))
    assert policy.queues == {0: 0.0, 1: 3.0, 2: 9.0}


def test_mlfq_promotes_who_has_waited_too_long() -> None:
    short = 30
    arrivals = [0, *range(3, 3 + 2 * short, 2)]
    jobs = Jobs([1] * (short + 1), [6, *[2] * short], arrivals=arrivals, limits=[90] * (short + 1))
    starved = on_one_seat(MLFQ(2000.0, None), jobs)
    assert starved.requests[0].finished == 66.0
    guarded = on_one_seat(MLFQ(2000.0, 10.0, period=1), jobs)
    assert guarded.requests[0].finished is not None
    assert guarded.requests[0].finished <= 3 + 10 + 2 + 3
    # Looked for at iterations 0, 20 and 40: it waits from 3 s on, rises at 20 s and needs 3 s more.
    seldom = on_one_seat(MLFQ(2000.0, 10.0, period=20), jobs)
    assert seldom.requests[0].finished is not None
    assert 20 + 3 <= seldom.requests[0].finished <= 20 + 2 + 3


def test_mlfq_swaps_out_of_the_last_queue_when_memory_is_short() -> None:
    jobs = Jobs([4] * 3, [12, 12, 12], arrivals=[0, 0, 5], limits=[90] * 3)
    run = simulate(MLFQ(3000.0, None), jobs, blocks=7, memory=HOST)
    first = next(i for i in run.iterations if i.preempted)
    assert first.preempted == [1]
    assert sum(r.recomputed_tokens for r in run.requests.values()) == 0


@THIRD
@given(
    load=loads(),
    quantum=st.sampled_from([500.0, 3000.0]),
    starvation=st.sampled_from([None, 5.0]),
    swaps=st.booleans(),
)
def test_mlfq_conserves_everything(
    load: Load, quantum: float, starvation: float | None, swaps: bool
) -> None:
    policy = MLFQ(quantum, starvation, 2, preemption="swap" if swaps else "recompute")
    run_under_pressure(policy, load)
    policy.check()
    assert not policy._places


@pytest.mark.parametrize(
    ("quantum", "starvation"), [(0.0, 3.0), (float("nan"), 3.0), (10.0, 0.0), (10.0, float("inf"))]
)
def test_mlfq_refuses_parameters_out_of_range(quantum: float, starvation: float) -> None:
    with pytest.raises(ConfigError, match="policy 'mlfq': "):
        MLFQ(quantum, starvation)
