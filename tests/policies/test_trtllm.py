"""`trtllm`: who holds memory, then who runs."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedsim.errors import ConfigError
from schedsim.policies import TRTLLM
from schedsim.request import Status
from tests.core.harness import Jobs, simulate
from tests.policies.workloads import Workload, preemptions, run_to_the_end, workloads


def test_guaranteed_no_evict_admits_who_has_memory_to_its_limit() -> None:
    jobs = Jobs([4, 4, 4], [6, 6, 6], limits=[13, 13, 13])
    run = simulate(TRTLLM(), jobs, blocks=9)
    assert run.iterations[0].admitted == [0, 1], "4 blocks each, 1 is left"
    assert run.requests[2].admitted == run.requests[0].finished
    assert preemptions(run) == 0


def test_max_utilization_admits_on_the_prompt_and_pauses_the_latest_arrival() -> None:
    jobs = Jobs([4, 4, 4], [6, 6, 6], limits=[13, 13, 13])
    run = simulate(TRTLLM(capacity="max-utilization"), jobs, blocks=4)
    assert run.iterations[0].admitted == [0, 1, 2]
    pausing = next(i for i in run.iterations if i.preempted)
    assert pausing.preempted == [2]
    assert not pausing.admitted
    assert run.requests[0].preemptions == 0
    assert run.requests[2].recomputed_tokens > 0


def test_decodes_come_before_prompts() -> None:
    jobs = Jobs([4, 40, 4], [9, 2, 9], arrivals=[0, 1, 1])
    run = simulate(TRTLLM(), jobs, budget=17, block_size=4)
    # 16 tokens are left: four units of the long prompt, and none for the short one.
    assert run.iterations[1].tokens == {0: 1, 1: 16}


def test_fcfs_chunks_are_whole_or_in_units_and_smaller_prompts_use_the_rest() -> None:
    jobs = Jobs([50, 30, 5], [2, 2, 2])
    run = simulate(TRTLLM(chunk_unit=16), jobs, budget=40)
    assert run.iterations[0].tokens == {0: 32, 2: 5}
    assert run.iterations[1].tokens == {0: 18, 1: 16, 2: 1}


def test_equal_progress_gives_one_unit_each_in_turn() -> None:
    jobs = Jobs([50, 30, 5], [2, 2, 2])
    run = simulate(TRTLLM(chunking="equal-progress", chunk_unit=8), jobs, budget=40)
    # 8, 8 and 5; 8 and 8; the 3 that are left are no unit.
    assert run.iterations[0].tokens == {0: 16, 1: 16, 2: 5}


def test_without_chunks_a_prompt_that_does_not_fit_ends_admission() -> None:
    jobs = Jobs([30, 20, 5], [2, 2, 2])
    run = simulate(TRTLLM(chunking="none"), jobs, budget=40)
    assert [i.tokens for i in run.iterations[:2]] == [{0: 30}, {0: 1, 1: 20, 2: 5}]


def test_a_prompt_waits_for_blocks_that_another_is_just_computing() -> None:
    jobs = Jobs([17, 17, 9], [2, 2, 2], chains=[[1] * 16, [1] * 16, [2] * 8])
    run = simulate(TRTLLM(), jobs, memory="paged,prefix_caching=true")
    assert run.iterations[0].tokens == {0: 17, 2: 9}
    assert run.iterations[1].tokens == {0: 1, 1: 1, 2: 1}
    apart = simulate(TRTLLM(), jobs)
    assert apart.iterations[0].tokens == {0: 17, 1: 17, 2: 9}


def test_what_could_never_run_is_rejected() -> None:
    too_large = simulate(TRTLLM(), Jobs([4], [1], limits=[40]), blocks=8)
    assert too_large.requests[0].status is Status.REJECTED
    uncut = simulate(TRTLLM("max-utilization", "none"), Jobs([30], [4], limits=[20]), budget=40)
    assert "exceed the token budget" in uncut.requests[0].reason
    units = simulate(TRTLLM(chunk_unit=64), Jobs([60], [4]), budget=40)
    assert "units of 64" in units.requests[0].reason


@pytest.mark.parametrize(
    "make", [lambda: TRTLLM(chunk_unit=0), lambda: TRTLLM(chunking="none", chunk_unit=4)]
)
def test_parameters_out_of_range_are_refused(make: type[TRTLLM]) -> None:
    with pytest.raises(ConfigError, match=r"policy 'trtllm': \w+="):
        make()


@settings(max_examples=40)
@given(workloads(), st.sampled_from(["fcfs", "equal-progress", "none"]), st.sampled_from([None, 3]))
def test_guaranteed_no_evict_keeps_its_name(
    workload: Workload, chunking: str, unit: int | None
) -> None:
    unit = None if chunking == "none" else unit
    run = run_to_the_end(TRTLLM(chunking=chunking, chunk_unit=unit), workload)  # type: ignore[arg-type]
    assert preemptions(run) == 0
    assert all(sum(i.tokens.values()) <= workload.engine["budget"] for i in run.iterations)


@settings(max_examples=40)
@given(workloads(), st.sampled_from(["fcfs", "equal-progress", "none"]))
def test_max_utilization_pauses_from_the_end(workload: Workload, chunking: str) -> None:
    run = run_to_the_end(TRTLLM("max-utilization", chunking), workload)  # type: ignore[arg-type]
    for iteration in run.iterations:
        kept = iteration.tokens
        assert not iteration.preempted or max(kept, default=-1) < min(iteration.preempted)
