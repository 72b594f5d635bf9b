"""`vllm-v0` as vLLM 0.6.3 has it: chunks, priorities, delay."""

import pytest
from hypothesis import given, settings

from schedsim.errors import ConfigError
from schedsim.policies import VLLMv0
from tests.core.harness import Jobs, simulate
from tests.policies.workloads import Workload, preemptions, run_to_the_end, workloads


def test_chunked_runs_decodes_then_chunks_then_new_prompts_in_one_budget() -> None:
    jobs = Jobs([4, 30, 30], [9, 2, 2], arrivals=[0, 1, 1])
    run = simulate(VLLMv0(chunked=True), jobs, budget=20)
    assert [i.tokens for i in run.iterations[:4]] == [
        {0: 4},
        {0: 1, 1: 19},
        {0: 1, 1: 11, 2: 8},
        {0: 1, 1: 1, 2: 18},
    ]


def test_chunked_takes_the_blocks_of_the_whole_prompt_at_admission() -> None:
    jobs = Jobs([24, 24], [2, 2])
    run = simulate(VLLMv0(chunked=True, watermark=0.0), jobs, blocks=9, budget=8)
    assert len(run.iterations[0].blocks[0]) == 6
    assert run.requests[1].admitted == run.requests[0].finished


def test_chunked_may_admit_others_where_it_preempted() -> None:
    # Request 1 goes, and request 2, which needs one block, takes its place at once.
    jobs = Jobs([4, 12, 3], [20, 14, 2], arrivals=[0, 0, 4])
    policy = VLLMv0(chunked=True, watermark=0.0)
    run = simulate(policy, jobs, blocks=7, seats=2)
    preempting = next(i for i in run.iterations if i.preempted)
    assert preempting.preempted == [1]
    assert preempting.admitted == [2]


def test_the_head_of_the_line_drives_out_who_is_less_urgent() -> None:
    jobs = Jobs([4, 4, 4], [9, 9, 3], arrivals=[0, 0, 2], priorities=[1, 2, 0])
    run = simulate(VLLMv0(policy="priority"), jobs, seats=2)
    making_way = run.iterations[2]
    assert making_way.preempted == [1], "the least urgent"
    assert making_way.tokens == {0: 1}, "the others decode"
    assert run.iterations[3].tokens == {2: 4}
    fcfs = simulate(VLLMv0(), jobs, seats=2)
    assert preemptions(fcfs) == 0


def test_nobody_gives_way_to_an_equal_or_where_there_is_room() -> None:
    later = Jobs([4, 4, 4], [9, 9, 3], arrivals=[0, 0, 2], priorities=[1, 1, 1])
    assert preemptions(simulate(VLLMv0(policy="priority"), later, seats=2)) == 0
    urgent = Jobs([4, 4, 4], [9, 9, 3], arrivals=[0, 0, 2], priorities=[1, 1, 0])
    assert preemptions(simulate(VLLMv0(policy="priority"), urgent, seats=3)) == 0


def test_with_priorities_the_victim_is_the_least_urgent() -> None:
    jobs = Jobs([4, 4, 4], [9, 9, 9], priorities=[0, 2, 1], arrivals=[0, 0, 0])
    policy = VLLMv0(policy="priority", watermark=0.0)
    run = simulate(policy, jobs, blocks=6)
    assert next(i for i in run.iterations if i.preempted).preempted[0] == 1


def test_delay_collects_prompts_for_the_time_of_the_last_prefill() -> None:
    jobs = Jobs([4] * 5, [20] * 5, arrivals=[0, 1, 2, 3, 4])
    run = simulate(VLLMv0(delay_factor=2.5), jobs)
    # A prefill takes a second: request 1 waits for more than 2.5, with whoever comes until then.
    assert [(i.start, i.admitted) for i in run.iterations if i.admitted] == [
        (0.0, [0]),
        (4.0, [1, 2, 3, 4]),
    ]
    assert len([i for i in simulate(VLLMv0(), jobs).iterations if i.admitted]) == 5


def test_delay_is_off_where_nothing_runs() -> None:
    run = simulate(VLLMv0(delay_factor=50.0), Jobs([4, 4], [3, 3], arrivals=[0, 1]))
    assert run.requests[1].admitted == run.requests[0].finished == 3.0


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: VLLMv0(delay_factor=-1.0), "delay_factor=-1.0"),
        (lambda: VLLMv0(policy="priority", chunked=True), "priority and chunked=true"),
        (lambda: VLLMv0(policy="priority", preemption="swap"), "priority and preemption=swap"),
        (lambda: VLLMv0(delay_factor=0.5, chunked=True), "delay_factor and chunked=true"),
        (lambda: VLLMv0(padded_budget=True, chunked=True), "padded_budget=true and chunked=true"),
    ],
)
def test_what_makes_no_sense_is_refused(make: type[VLLMv0], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make()


@settings(max_examples=40)
@given(workloads(("paged", "paged,host_blocks=20", "paged,prefix_caching=true,host_blocks=30")))
def test_everyone_finishes(workload: Workload) -> None:
    for policy in (
        VLLMv0(chunked=True),
        VLLMv0(chunked=True, preemption="swap"),
        VLLMv0(policy="priority"),
        VLLMv0(delay_factor=1.5),
    ):
        run = run_to_the_end(policy, workload)
        assert preemptions(run) <= 40 * len(run.requests)
