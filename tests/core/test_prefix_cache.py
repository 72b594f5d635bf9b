"""The prefix cache under the scheduler: what is found, by whom, and what it counts as."""

from collections.abc import Callable

import numpy as np

from schedsim.content import Content
from schedsim.memory import PrefixCachedKVCache
from schedsim.policies import VLLM, Policy, Sarathi, Static
from schedsim.request import Request
from schedsim.scheduler import Step
from tests.core.harness import Jobs, Run, simulate

CACHED = "paged,prefix_caching=true"


class Plan(Policy):
    """Calls the function of an iteration's number, or runs as the defaults do."""

    def __init__(self, **plans: Callable[[Step], None]) -> None:
        self.plans = {int(name.removeprefix("at")): plan for name, plan in plans.items()}

    def schedule(self, step: Step) -> None:
        plan = self.plans.get(step.iteration)
        if plan is None:
            super().schedule(step)
        else:
            plan(step)


def twins(count: int, prompt: int = 12, output: int = 3, **columns: object) -> Jobs:
    """Requests with one and the same prompt."""
    return Jobs([prompt] * count, [output] * count, chains=[range(prompt)] * count, **columns)  # type: ignore[arg-type]


def waiting(step: Step, request_id: int) -> Request:
    return next(request for request in step.waiting if request.id == request_id)


def running(step: Step, request_id: int) -> Request:
    return next(request for request in step.running if request.id == request_id)


def found(run: Run) -> dict[int, int]:
    return {request: run.requests[request].cached_tokens for request in run.requests}


def test_a_prompt_is_found_by_who_is_admitted_after_it_in_the_same_iteration() -> None:
    run = simulate(Policy(), twins(3), memory=CACHED)
    first = run.iterations[0]
    assert first.scheduled == [(0, 12, "new"), (1, 4, "new"), (2, 4, "new")]
    assert first.blocks[0][:2] == first.blocks[1][:2] == first.blocks[2][:2]
    assert found(run) == {0: 0, 1: 8, 2: 8}


def test_of_a_prompt_that_is_cached_to_its_end_the_last_block_is_computed() -> None:
    run = simulate(Policy(), twins(2, arrivals=[0.0, 9.0]), memory=CACHED)
    assert found(run) == {0: 0, 1: 8}
    one_more = simulate(Policy(), twins(2, prompt=13, arrivals=[0.0, 9.0]), memory=CACHED)
    assert found(one_more) == {0: 0, 1: 12}


def test_without_a_cache_nothing_is_found() -> None:
    run = simulate(Policy(), twins(3))
    assert found(run) == {0: 0, 1: 0, 2: 0}
    assert run.result.summary["cached_tokens"] == 0


def test_a_follow_up_finds_prompt_and_output_of_its_parent() -> None:
    jobs = Jobs([6, 14], [6, 1], parents=[-1, 0])
    for policy in (Policy(), Static(batch_size=1)):  # one takes blocks late, one all at once
        run = simulate(policy, jobs, memory=CACHED)
        # 11 tokens of the parent have keys and values: the newest one has none.
        assert found(run) == {0: 0, 1: 8}


def test_slots_of_shared_blocks_count_once() -> None:
    run = simulate(Policy(), twins(3), memory=CACHED)
    steps = run.result.steps
    assert steps["stored_tokens"].tolist() == [20, 23, 26]
    assert run.result.summary["cached_tokens"] == 16
    computed = sum(tokens for i in run.iterations for _, tokens, _ in i.scheduled)
    assert computed == 3 * (12 + 3 - 1) - 16


def test_a_reservation_is_found_only_as_far_as_it_is_computed() -> None:
    jobs = twins(2, prompt=40, arrivals=[0.0, 1.5])
    run = simulate(Sarathi(chunk_size=8), jobs, memory=CACHED)
    assert len(run.iterations[0].blocks[0]) == 10
    second = next(i for i in run.iterations if 1 in i.tokens)
    assert run.requests[1].admitted == second.start
    assert run.requests[1].cached_tokens == 36, "it waits until the first prompt is computed"
    early = Plan(
        at1=lambda step: (step.run(running(step, 0), 8), step.admit(waiting(step, 1), 1))  # type: ignore[arg-type,return-value]
    )
    early.reservation = lambda request, tokens: 40  # type: ignore[method-assign]
    run = simulate(early, jobs_at_once(40), budget=8, memory=CACHED)
    assert run.requests[1].cached_tokens == 16


def jobs_at_once(prompt: int) -> Jobs:
    return twins(2, prompt=prompt, arrivals=[0.0, 0.5])


def test_what_was_planned_and_dropped_is_not_found() -> None:
    def admit_and_drop(step: Step) -> None:
        assert step.admit(waiting(step, 0), 12)
        step.preempt(running(step, 0))
        assert step.cached_tokens(waiting(step, 1)) == 0
        assert step.admit(waiting(step, 1), 12)

    run = simulate(Plan(at0=admit_and_drop), twins(2), memory=CACHED)
    assert run.iterations[0].scheduled == [(1, 12, "new")]
    assert run.requests[1].cached_tokens == 0
    assert run.requests[0].cached_tokens == 8, "found when it came back, never had before"
    assert run.requests[0].recomputed_tokens == 0


def test_who_relies_on_what_a_victim_was_to_compute_goes_with_it() -> None:
    def admit_both_and_drop_one(step: Step) -> None:
        assert step.admit(waiting(step, 0), 12)
        assert step.admit(waiting(step, 1), 12)
        assert step.admit(waiting(step, 2), 9)
        step.preempt(running(step, 0))

    jobs = Jobs([12, 12, 9], [3, 3, 3], chains=[range(12), range(12), []])
    run = simulate(Plan(at0=admit_both_and_drop_one), jobs, memory=CACHED)
    assert run.iterations[0].preempted == [1, 0]
    assert run.iterations[0].scheduled == [(2, 9, "new")]
    assert run.requests[1].preemptions == 1
    # It had found 8 tokens, lost them, and found them again.
    assert (run.requests[1].cached_tokens, run.requests[1].recomputed_tokens) == (8, 0)


def test_a_chain_of_reliance_goes_to_its_end() -> None:
    def three(step: Step) -> None:
        for request, tokens in ((0, 4), (1, 8), (2, 8)):
            assert step.admit(waiting(step, request), tokens)
        step.preempt(running(step, 0))

    run = simulate(Plan(at0=three), twins(3, prompt=16), memory=CACHED)
    assert run.iterations[0].preempted == [2, 1, 0]


def test_a_resumed_request_finds_itself_and_computes_only_what_is_gone() -> None:
    jobs = Jobs([8], [12])
    run = simulate(Plan(at6=lambda step: step.preempt(running(step, 0))), jobs, memory=CACHED)
    request = run.requests[0]
    # 13 tokens were computed, 12 of them in full blocks.
    assert run.iterations[7].scheduled == [(0, 2, "resume")]
    assert (request.cached_tokens, request.recomputed_tokens) == (0, 1)
    computed = sum(tokens for i in run.iterations for _, tokens, _ in i.scheduled)
    assert computed == 8 + 12 - 1 + 1


def test_of_equal_blocks_the_oldest_that_is_left_is_found() -> None:
    jobs = Jobs([5] * 4 + [32, 5], [1] * 6, chains=[*[range(4)] * 4, [], range(4)])
    kv_cache = PrefixCachedKVCache(8, 4, Content.of(jobs.trace(), jobs.split()))
    *copies, filler, other = [Request(row, 0.0, jobs.prompts[row], 1) for row in range(6)]
    for request in copies:  # none is computed when the next is admitted
        assert kv_cache.reserve(request, 5)
    for request in copies:
        kv_cache.plan(request, 5)
    kv_cache.commit()
    blocks = [kv_cache.block_table(request)[0] for request in copies]
    for request in copies:
        kv_cache.release(request)
    for lost, block in enumerate(blocks):
        assert kv_cache.reserve(filler, 4 * (4 + lost))
        assert kv_cache.reserve(other, 4)
        assert list(kv_cache.block_table(other)) == [block]
        kv_cache.check()
        kv_cache.release(filler)
        kv_cache.release(other)
        kv_cache._idle.move_to_end(block, last=False)  # it is the next to go all the same
    assert kv_cache.reserve(filler, 32)
    assert kv_cache.find(other).blocks == 0


def test_memory_that_the_cache_holds_is_free_for_others() -> None:
    jobs = Jobs([16, 16], [1, 1], arrivals=[0.0, 5.0])
    run = simulate(VLLM(), jobs, blocks=4, memory=CACHED)
    assert run.iterations[1].free_blocks == 0
    assert found(run) == {0: 0, 1: 0}
    assert np.isclose(run.result.summary["memory"]["used"], 1.0)
