"""EDF: who is served first, who is displaced, and what slack changes; all by hand."""

import math

import pytest

from schedsim.costs.linear import LinearCost
from schedsim.errors import ConfigError
from schedsim.policies import EDF
from tests.core.harness import Jobs, simulate


def test_the_line_is_ordered_by_when_first_tokens_are_due() -> None:
    jobs = Jobs([4] * 4, [2] * 4, ttft_slos=[9, 3, 6, math.nan])
    assert simulate(EDF(), jobs, seats=1).admissions() == [1, 2, 0, 3]
    late = Jobs([4] * 3, [4] * 3, [0, 1, 2], ttft_slos=[20, 30, 4])
    assert simulate(EDF(), late, seats=1).admissions() == [0, 2, 1]


def test_without_targets_it_is_first_come_first_served() -> None:
    jobs = Jobs([4] * 4, [3] * 4, [0, 0, 1, 2])
    assert simulate(EDF(), jobs, seats=1).admissions() == [0, 1, 2, 3]


def test_an_urgent_prompt_takes_the_budget_from_one_that_is_under_way() -> None:
    jobs = Jobs([40, 12], [2, 2], [0, 1], ttft_slos=[50, 5])
    run = simulate(EDF(), jobs, budget=10)
    assert [i.tokens for i in run.iterations[:4]] == [
        {0: 10},
        {1: 10},
        {1: 2, 0: 8},
        {1: 1, 0: 9},  # the decode first
    ]
    assert run.requests[0].preemptions == 0, "it keeps its blocks"


def test_slack_counts_the_prefill_that_is_left() -> None:
    # 10 ms a token: the prompt of 40 must start 0.4 s before it is due, that of 4 only 0.04 s.
    cost = LinearCost(0.0, 10.0, 10.0, 0.0, 0.0)
    jobs = Jobs([4, 40], [1, 1], ttft_slos=[1.0, 1.2])
    assert simulate(EDF(), jobs, seats=1, cost=cost).admissions() == [0, 1]
    assert simulate(EDF(order="slack"), jobs, seats=1, cost=cost).admissions() == [1, 0]


def test_only_preemptive_displaces_and_the_displaced_goes_on_where_it_was() -> None:
    jobs = Jobs([4, 4], [5, 2], [0, 2], ttft_slos=[30, 2], tpot_slos=[10, 1])
    assert simulate(EDF(), jobs, seats=1).requests[1].first_token == 6.0
    policy = EDF(preemptive=True, preemption="swap")
    run = simulate(policy, jobs, seats=1, memory="paged,host_blocks=10")
    assert run.requests[1].first_token == 3.0
    assert [list(i.tokens) for i in run.iterations] == [[0], [0], [1], [1], [0], [0], [0]]
    assert run.requests[0].recomputed_tokens == 0
    lost = simulate(EDF(preemptive=True), jobs, seats=1)
    assert lost.requests[0].recomputed_tokens == 5, "4 of the prompt and one decode"


def test_who_displaces_leaves_the_decodes_that_stay_their_tokens() -> None:
    jobs = Jobs([1, 1, 3], [9, 9, 2], [0, 0, 2], ttft_slos=[20, 30, 4], tpot_slos=[5, 5, 1])
    run = simulate(EDF(preemptive=True), jobs, seats=2, budget=3)
    assert [i.tokens for i in run.iterations[1:4]] == [{0: 1, 1: 1}, {0: 1, 2: 2}, {0: 1, 2: 1}]
    full = simulate(EDF(preemptive=True), jobs, seats=2, budget=1)
    assert full.requests[1].preemptions == 0, "the decode of 0 is the whole budget"


def test_nobody_is_displaced_in_vain() -> None:
    # The head needs 6 blocks; those due later than it hold 2, who is due sooner holds 2.
    jobs = Jobs([8, 8, 24], [9, 9, 1], [0, 0, 1], ttft_slos=[2, 30, 10], tpot_slos=[1, 9, 1])
    run = simulate(EDF(preemptive=True), jobs, blocks=7, budget=64)
    assert not any(i.preempted for i in run.iterations[:2])
    enough = simulate(EDF(preemptive=True), jobs, blocks=9, budget=64)
    assert enough.iterations[1].preempted == [1]
    assert enough.iterations[1].admitted == [2]


def test_who_is_displaced_gives_what_it_holds_reserved_too() -> None:
    # Request 0 has stored 7 tokens in iteration 3, in 2 of the 6 blocks that it holds.
    jobs = Jobs([4, 16], [19, 4], [0, 3], limits=[20, 5], ttft_slos=[50, 4], tpot_slos=[9, 9])
    run = simulate(EDF(preemptive=True), jobs, blocks=8, memory="contiguous")
    assert run.iterations[3].preempted == [0]
    assert run.iterations[3].admitted == [1]


def test_who_is_due_last_gives_its_blocks() -> None:
    jobs = Jobs([4, 4, 4], [6, 6, 6], ttft_slos=[9, 2, 5], tpot_slos=[1, 1, 1])
    run = simulate(EDF(), jobs, blocks=3)
    assert run.iterations[0].admitted == [1, 2, 0]
    assert run.iterations[1].preempted == [0, 2]
    assert run.requests[1].preemptions == 0


def test_parameters_that_cannot_be_are_told() -> None:
    with pytest.raises(ConfigError, match="leave one of them out"):
        EDF(order="slack", preemptive=True)
    with pytest.raises(ConfigError, match="must be finite and above 0"):
        EDF(patience=0.0)
