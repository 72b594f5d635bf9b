"""What the shipped policies promise, on traces small enough to follow by hand."""

from typing import Any

import numpy as np
import pytest

from schedsim.errors import ConfigError
from schedsim.policies import VLLM, VLLM011, VLLM019, VLLM033, Policy, Sarathi, Static, VLLMv0
from schedsim.predictors import Oracle
from schedsim.request import Request, Status
from schedsim.scheduler import Step
from tests.core.harness import Jobs, Run, simulate


def preemptions(run: Run) -> list[int]:
    return [run.requests[number].preemptions for number in sorted(run.requests)]


# ---- vllm


def test_vllm_whole_sequence_admits_only_what_has_blocks_for_its_whole_prompt() -> None:
    jobs = Jobs([8, 16], [3, 3])
    whole = simulate(VLLM(), jobs, blocks=6, budget=12)
    assert whole.iterations[0].tokens == {0: 8, 1: 4}, "4 blocks for the prompt are free"
    whole = simulate(VLLM(), jobs, blocks=5, budget=12)
    assert whole.iterations[0].tokens == {0: 8}
    chunk = simulate(VLLM(whole_sequence=False), jobs, blocks=5, budget=12)
    assert chunk.iterations[0].tokens == {0: 8, 1: 4}, "1 block for the first chunk is free"


def test_vllm_watermark_binds_only_while_something_runs() -> None:
    jobs = Jobs([16, 4], [2, 2])
    run = simulate(VLLM(watermark=0.5), jobs, blocks=6)
    assert run.iterations[0].admitted == [0], "alone it may take more than half"
    assert run.iterations[-2].admitted == [1]
    assert run.requests[1].admitted == run.requests[0].finished


def test_vllm_watermark_counts_the_null_block() -> None:
    jobs = Jobs([4, 4], [2, 2])
    # int(0.25 · (11 + 1)) is 3, int(0.25 · 11) would be 2: 10 blocks stay free after request 0.
    assert simulate(VLLM(watermark=0.25), jobs, blocks=11).iterations[0].admitted == [0, 1]
    tight = Jobs([28, 4], [2, 2])  # 7 blocks, then 4 are free: 1 + 3 fits, 1 + 2 would as well
    assert simulate(VLLM(watermark=0.25), tight, blocks=11).iterations[0].admitted == [0, 1]
    tight = Jobs([32, 4], [2, 2])  # 8 blocks, then 3 are free: 1 + 3 does not fit
    assert simulate(VLLM(watermark=0.25), tight, blocks=11).iterations[0].admitted == [0]


def test_vllm_admits_nobody_in_an_iteration_that_preempted() -> None:
    jobs = Jobs([4, 4, 4], [6, 6, 1], arrivals=[0, 0, 1])
    run = simulate(VLLM(), jobs, blocks=5, block_size=2)
    preempting = [i for i in run.iterations if i.preempted]
    assert preempting
    assert not any(i.admitted for i in preempting)


def test_vllm_preempts_the_latest_admitted_and_resumes_it_first() -> None:
    run = simulate(VLLM(), Jobs([4] * 3, [6] * 3), blocks=3)
    assert run.iterations[1].preempted == [2, 1]
    assert run.iterations[1].tokens == {0: 1}
    resumed = [
        request for i in run.iterations for request, _, kind in i.scheduled if kind == "resume"
    ]
    assert resumed[:2] == [1, 2]
    assert run.requests[0].preemptions == 0


def test_vllm_one_token_requests_never_decode() -> None:
    run = simulate(VLLM(), Jobs([4, 9], [1, 1]), budget=8)
    assert [i.tokens for i in run.iterations] == [{0: 4, 1: 4}, {1: 5}]
    assert run.requests[0].finished == run.requests[0].first_token == 1.0
    assert run.gaps(0) == []


# ---- vllm: priority, chunks, intervals


def test_vllm_priority_admits_by_urgency_and_displaces_nobody() -> None:
    jobs = Jobs([4, 4, 4, 4], [6, 6, 6, 6], arrivals=[0, 1, 1, 1], priorities=[1, 2, 0, 1])
    run = simulate(VLLM(policy="priority"), jobs, seats=2)
    assert run.admissions() == [0, 2, 3, 1]


def test_vllm_priority_preempts_the_least_urgent_even_where_it_is_planned_already() -> None:
    jobs = Jobs([4, 4, 4], [6, 6, 6], arrivals=[0, 1, 2], priorities=[1, 2, 0])
    run = simulate(VLLM(policy="priority"), jobs, blocks=5)
    preempting = next(i for i in run.iterations if i.preempted)
    assert preempting.preempted == [1], "it is not the last, and its turn was before the needy's"
    assert preempting.tokens == {0: 1, 2: 1}
    assert run.requests[2].preemptions == 0
    run = simulate(VLLM(), jobs, blocks=5)
    assert next(i for i in run.iterations if i.preempted).preempted == [2]


def test_vllm_goes_on_after_a_self_preemption_and_older_versions_stop() -> None:
    # Request 0 lacks a block and is the least urgent; its own blocks let request 1 run.
    jobs = Jobs([4, 6], [9, 3], arrivals=[0, 0], priorities=[1, 0], limits=[9, 9])

    def preempting(policy: VLLM) -> dict[int, int]:
        run = simulate(policy, jobs, blocks=3)
        return next(i for i in run.iterations if i.preempted == [0]).tokens

    class First(VLLM):
        """Admits by id, preempts by priority."""

        def key(self, request: Request) -> float:
            return request.id

    class Stops(First):
        stops_at_own_preemption = True

    assert preempting(First(policy="priority")) == {1: 1}
    assert preempting(Stops(policy="priority")) == {}


def test_vllm_equal_priorities_are_given_up_last_arrival_first() -> None:
    run = simulate(VLLM(policy="priority"), Jobs([4] * 3, [6] * 3), blocks=3)
    assert run.iterations[1].preempted == [2, 1]


def test_vllm_long_prefill_threshold_caps_a_chunk_unless_the_request_is_alone() -> None:
    together = Jobs([30, 4], [2, 6])
    run = simulate(VLLM(long_prefill_threshold=10), together)
    assert [i.tokens for i in run.iterations[:3]] == [{0: 10, 1: 4}, {0: 10, 1: 1}, {0: 10, 1: 1}]
    alone = Jobs([30], [2])
    assert simulate(VLLM(long_prefill_threshold=10), alone).iterations[0].tokens == {0: 30}
    old = simulate(VLLM019(long_prefill_threshold=10), alone)
    assert old.iterations[0].tokens == {0: 10}
    adaptive = VLLM(long_prefill_threshold=10, adaptive_threshold=True)
    assert simulate(adaptive, together, budget=40).iterations[0].tokens == {0: 20, 1: 4}


def test_vllm_without_chunks_a_cut_prompt_ends_admission() -> None:
    jobs = Jobs([50, 30, 4], [2, 2, 2])
    run = simulate(VLLM(chunked_prefill=False), jobs, max_model_len=60)
    assert run.iterations[0].tokens == {0: 50}
    assert run.iterations[1].tokens == {0: 1, 1: 30, 2: 4}
    assert VLLM(chunked_prefill=False).default_token_budget(9000) == 9000
    too_long = simulate(VLLM(chunked_prefill=False), Jobs([50, 4], [16, 2]), budget=64)
    assert too_long.requests[0].status is Status.REJECTED
    assert "chunked_prefill is off" in too_long.requests[0].reason
    assert too_long.requests[1].status is Status.FINISHED


def test_vllm_prefill_interval_leaves_decodes_alone_between_prefills() -> None:
    jobs = Jobs([4] * 3, [12] * 3, arrivals=[0, 1, 2])
    run = simulate(VLLM(prefill_interval=4), jobs)
    assert [i.number for i in run.iterations if i.admitted] == [0, 4]
    assert run.iterations[4].admitted == [1, 2]
    # A chunk that is under way waits as well.
    jobs = Jobs([4, 100], [12, 2], arrivals=[0, 1])
    run = simulate(VLLM(prefill_interval=3), jobs)
    assert [i.number for i in run.iterations if 1 in i.tokens][:2] == [3, 6]


def test_vllm_prefill_interval_is_off_while_the_line_cannot_be_emptied() -> None:
    jobs = Jobs([4] * 4, [3, 9, 9, 9])
    run = simulate(VLLM(prefill_interval=9), jobs, seats=2)
    assert run.iterations[0].admitted == [0, 1]
    assert [i.number for i in run.iterations if i.admitted == [2]] == [3]


def test_vllm_versions_say_how_their_engines_start() -> None:
    assert (VLLM.default_memory, VLLM.default_decision_lag) == ("paged", 0)
    assert (VLLM033.default_memory, VLLM033.default_decision_lag) == (
        "paged,prefix_caching=true",
        1,
    )
    assert VLLM019.default_decision_lag == 1
    assert VLLM011.default_decision_lag == 0
    assert VLLM011().whole_sequence is False
    with pytest.raises(ConfigError, match="has no such"):
        VLLM011(chunked_prefill=False)


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"long_prefill_threshold": -1}, "long_prefill_threshold=-1 is below 0"),
        ({"prefill_interval": 0}, "prefill_interval=0 is below 1"),
        ({"watermark": 1.0}, "watermark=1.0"),
    ],
)
def test_vllm_refuses_parameters_out_of_range(parameters: dict[str, Any], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        VLLM(**parameters)


# ---- vllm-v0


def test_v0_prefills_first_and_decodes_stall_meanwhile() -> None:
    jobs = Jobs([4, 4, 4], [4, 4, 1], arrivals=[0, 1, 2])
    run = simulate(VLLMv0(), jobs)
    assert [i.tokens for i in run.iterations] == [
        {0: 4},
        {1: 4},
        {2: 4},
        {0: 1, 1: 1},
        {0: 1, 1: 1},
        {0: 1, 1: 1},
    ]
    assert sorted(run.gaps(0)) == [1.0, 1.0, 3.0]


def test_v0_rejects_a_prompt_beyond_the_budget() -> None:
    run = simulate(VLLMv0(), Jobs([64, 65, 4], [1, 1, 1]), budget=64)
    assert [r.status for r in run.requests.values()] == ["finished", "rejected", "finished"]
    assert "65 tokens to compute at once exceed the token budget of 64" in run.requests[1].reason


def test_v0_default_budget_takes_every_prompt() -> None:
    run = simulate(VLLMv0(), Jobs([2500], [1]), budget=None, max_model_len=3000)
    assert run.iterations[0].tokens == {0: 2500}
    run = simulate(VLLMv0(), Jobs([1500, 548, 1], [1] * 3), budget=None, max_model_len=1501)
    assert run.iterations[0].tokens == {0: 1500, 1: 548}


def test_v0_a_preempted_request_longer_than_the_budget_runs_alone() -> None:
    # Both grow to 8 tokens and more; the budget of 8 is below what the victim has to recompute.
    jobs = Jobs([8, 8, 2], [10, 10, 2], arrivals=[0, 0, 1])
    run = simulate(VLLMv0(watermark=0.0), jobs, blocks=7, budget=8, seats=2)
    recomputed = [i for i in run.iterations if any(kind == "resume" for _, _, kind in i.scheduled)]
    assert recomputed
    long = [i for i in recomputed if max(i.tokens.values()) > 8]
    assert long
    assert all(len(i.scheduled) == 1 for i in long)
    assert all(r.status is Status.FINISHED for r in run.requests.values())


def test_v0_padded_budget_counts_the_longest_prompt_for_each() -> None:
    jobs = Jobs([4, 10, 4], [1] * 3)
    plain = simulate(VLLMv0(), jobs, budget=20)
    assert [i.admitted for i in plain.iterations] == [[0, 1, 2]]
    padded = simulate(VLLMv0(padded_budget=True), jobs, budget=20)
    assert [i.admitted for i in padded.iterations] == [[0, 1], [2]]


@pytest.mark.parametrize("policy", [VLLMv0(watermark=0.2), Sarathi(watermark=0.2)])
def test_what_never_leaves_the_watermark_free_is_rejected(policy: Policy) -> None:
    run = simulate(policy, Jobs([33, 32], [1, 1]), blocks=10)
    assert [r.status for r in run.requests.values()] == ["rejected", "finished"]
    assert run.requests[0].reason == "needs 9 blocks, the cache has 10 less the watermark of 2"


@pytest.mark.parametrize("policy", [VLLM(), VLLMv0(0.0), Sarathi(watermark=0.0), Static()])
def test_what_is_longer_than_cache_or_context_is_rejected(policy: Policy) -> None:
    # The newest token needs no slot: 36 + 4 tokens store 39, in ten blocks of four.
    run = simulate(policy, Jobs([36, 38, 90], [5, 4, 11]), blocks=10, max_model_len=100, budget=100)
    assert [r.status for r in run.requests.values()] == ["finished", "rejected", "rejected"]
    assert run.requests[1].reason == "needs 11 blocks, the cache has 10"
    assert run.requests[2].reason == "101 tokens exceed the context of 100 (max_model_len)"


# ---- sarathi


def test_sarathi_decodes_use_the_chunk_before_prefills_do() -> None:
    run = simulate(Sarathi(chunk_size=4), Jobs([1] * 5, [3] * 5))
    assert [i.tokens for i in run.iterations[:3]] == [dict.fromkeys(range(4), 1)] * 3
    assert run.iterations[3].tokens == {4: 1}


def test_sarathi_decodes_pass_even_beyond_the_chunk_size() -> None:
    class Shrinks(Sarathi):
        def budget(self, step: Step) -> int:
            return self.chunk_size if step.now < 1.0 else 2

    run = simulate(Shrinks(chunk_size=9), Jobs([1] * 5, [3] * 5))
    assert [i.tokens for i in run.iterations] == [dict.fromkeys(range(5), 1)] * 3


def test_sarathi_cuts_prefills_to_what_decodes_leave() -> None:
    run = simulate(Sarathi(chunk_size=8), Jobs([4, 20], [9, 2]))
    assert [i.tokens for i in run.iterations[:4]] == [
        {0: 4, 1: 4},
        {0: 1, 1: 7},
        {0: 1, 1: 7},
        {0: 1, 1: 2},
    ]


def test_sarathi_stalls_no_decode() -> None:
    jobs = Jobs([4, 60, 60], [20, 2, 2], arrivals=[0, 2, 3])
    assert simulate(Sarathi(chunk_size=8), jobs).gaps(0) == [1.0] * 19
    assert max(simulate(VLLMv0(), jobs).gaps(0)) > 1.0


def test_sarathi_takes_the_blocks_of_the_whole_prompt_at_admission() -> None:
    run = simulate(Sarathi(chunk_size=8), Jobs([24, 24], [2, 2]), blocks=9)
    assert len(run.iterations[0].blocks[0]) == 6
    assert run.iterations[0].tokens == {0: 8}
    assert all(1 not in i.tokens for i in run.iterations if 0 in i.tokens), "3 blocks are too few"


# ---- static


def test_static_waits_for_a_full_batch() -> None:
    jobs = Jobs([4] * 4, [3] * 4, arrivals=[0, 2, 7, 30])
    run = simulate(Static(batch_size=2, max_wait=50.0), jobs)
    assert [(i.start, i.admitted) for i in run.iterations if i.admitted] == [
        (2.0, [0, 1]),
        (30.0, [2, 3]),
    ]


def test_static_starts_a_smaller_batch_after_the_longest_wait() -> None:
    jobs = Jobs([4] * 3, [3] * 3, arrivals=[0, 2, 7])
    run = simulate(Static(batch_size=2, max_wait=1.5), jobs)
    assert [(i.start, i.admitted) for i in run.iterations if i.admitted] == [
        (1.5, [0]),
        (4.5, [1]),
        (8.5, [2]),
    ]


def test_static_waits_for_no_more_than_there_are_seats() -> None:
    jobs = Jobs([4] * 4, [3] * 4)
    run = simulate(Static(batch_size=8, max_wait=100.0), jobs, seats=2)
    assert [(i.start, i.admitted) for i in run.iterations if i.admitted] == [
        (0.0, [0, 1]),
        (3.0, [2, 3]),
    ]


def test_static_members_keep_seat_and_blocks_until_the_last_has_finished() -> None:
    jobs = Jobs([4, 4, 4], [1, 5, 2], limits=[8, 8, 8])
    run = simulate(Static(batch_size=2), jobs, blocks=20)
    first = run.iterations[:5]
    assert [i.admitted for i in run.iterations] == [[0, 1], [], [], [], [], [2], []]
    assert [i.padding for i in first] == [0, 1, 1, 1, 1]
    # The prompt and 7 of 8 output tokens have slots: 3 blocks each, taken at admission.
    assert [i.free_blocks for i in first] == [14] * 5
    assert run.requests[0].finished == 1.0
    assert [i.start for i in run.iterations][5] == 5.0
    steps = run.result.steps
    assert steps["running"].tolist() == [2] * 5 + [1, 1]
    assert steps["decode_requests"].tolist() == [0, 1, 1, 1, 1, 0, 1]


def test_static_reserves_output_limits_and_never_preempts() -> None:
    jobs = Jobs([4] * 3, [2] * 3, limits=[9, 9, 50])
    run = simulate(Static(batch_size=3), jobs, blocks=7)
    assert [i.admitted for i in run.iterations if i.admitted] == [[0, 1]]
    assert run.requests[2].status is Status.REJECTED
    assert "reserve 14 blocks, the cache has 7" in run.requests[2].reason
    rng = np.random.default_rng(5)
    outputs = rng.integers(1, 40, 60).tolist()
    busy = simulate(Static(), Jobs([5] * 60, outputs, limits=[40] * 60), blocks=60)
    assert preemptions(busy) == [0] * 60
    assert max(len(i.blocks) for i in busy.iterations) < 8, "memory binds before the batch size"


def test_static_lets_the_memory_manager_foresee_and_preempts_the_last_where_it_is_short() -> None:
    jobs = Jobs([4] * 3, [9, 9, 2], limits=[50] * 3)
    run = simulate(Static(batch_size=3, reserve="prompt"), jobs, blocks=5)
    assert [i.admitted for i in run.iterations if i.admitted] == [[0, 1, 2], [1, 2]]
    assert preemptions(run) == [0, 1, 1]
    assert all(request.status is Status.FINISHED for request in run.requests.values())
    exact = simulate(
        Static(batch_size=3, reserve="prompt"),
        jobs,
        blocks=6,
        memory="contiguous,reserve=predicted",
        predictor=Oracle(),
    )
    assert [i.admitted for i in exact.iterations if i.admitted] == [[0], [1, 2]]
    assert preemptions(exact) == [0] * 3


def test_static_in_the_order_of_predictions_makes_batches_of_likes() -> None:
    jobs = Jobs([4] * 6, [9, 2, 30, 8, 3, 29], limits=[30] * 6)
    run = simulate(Static(batch_size=2, order="predicted"), jobs, predictor=Oracle())
    assert [i.admitted for i in run.iterations if i.admitted] == [[1, 4], [3, 0], [5, 2]]


def test_static_prefills_whole_prompts_slice_by_slice_before_anybody_decodes() -> None:
    jobs = Jobs([4, 6, 20, 3, 1, 1], [3] * 6)
    run = simulate(Static(batch_size=5, prefill_tokens=10), jobs)
    first = run.iterations[:4]
    assert [i.tokens for i in first] == [
        {0: 4, 1: 6},
        {2: 20},
        {3: 3, 4: 1},
        dict.fromkeys(range(5), 1),
    ]


def test_static_mean_batch_time_is_the_closed_form() -> None:
    """Lengths uniform on [a, a + w]: the longest of B takes a + w·B/(B + 1) on average."""
    rng = np.random.default_rng(7)
    low, width, size, batches = 20, 160, 8, 200
    lengths = np.round(rng.uniform(low, low + width, size * batches)).astype(int).tolist()
    jobs = Jobs([1] * len(lengths), lengths)
    run = simulate(Static(batch_size=size), jobs, blocks=10_000, block_size=16, check_every=None)
    mean = run.iterations[-1].start + 1.0
    expected = low + width * size / (size + 1)
    # The maximum of 8 has a standard deviation of 0.099·w; four of its standard errors.
    assert mean / batches == pytest.approx(expected, abs=4 * 0.099 * width / batches**0.5)


# ---- parameters


@pytest.mark.parametrize(
    "make",
    [
        lambda: VLLM(watermark=1.0),
        lambda: VLLM(watermark=-0.1),
        lambda: VLLM(watermark=float("nan")),
        lambda: VLLMv0(watermark=2.0),
        lambda: Sarathi(watermark=1.5),
        lambda: Sarathi(chunk_size=0),
        lambda: Static(batch_size=0),
        lambda: Static(max_wait=-1.0),
        lambda: Static(max_wait=float("inf")),
        lambda: Static(max_wait=float("nan")),
    ],
)
def test_parameters_out_of_range_are_refused(make: object) -> None:
    with pytest.raises(ConfigError, match=r"policy '[a-z0-9-]+': \w+="):
        make()  # type: ignore[operator]
