"""`sglang`: prefill first, the new token ratio, retraction, and the orders of the line."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedsim.errors import ConfigError
from schedsim.policies import SGLang
from schedsim.policies.prefix_order import depth_first
from schedsim.policies.sglang import _NewTokenRatio
from schedsim.request import Request, Status
from tests.core.harness import Jobs, simulate
from tests.policies.workloads import Workload, preemptions, run_to_the_end, workloads


def test_prefills_come_first_and_pause_the_decodes() -> None:
    jobs = Jobs([4, 30, 30], [9, 2, 2], arrivals=[0, 1, 2])
    run = simulate(SGLang(), jobs, memory="radix", block_size=1)
    assert [i.tokens for i in run.iterations[:4]] == [{0: 4}, {1: 30}, {2: 30}, {0: 1, 1: 1, 2: 1}]


def test_one_prompt_at_most_is_cut_and_goes_on_first() -> None:
    jobs = Jobs([20, 30, 30], [3, 2, 2])
    run = simulate(SGLang(chunk_size=32), jobs, memory="radix", block_size=1)
    assert [i.tokens for i in run.iterations[:3]] == [{0: 20, 1: 12}, {1: 18, 2: 14}, {2: 16}]
    paged = simulate(SGLang(chunk_size=32), jobs, block_size=8)
    assert paged.iterations[0].tokens == {0: 20, 1: 8}, "20 tokens are 24, and 8 are left"


def test_without_chunks_only_the_first_may_exceed_the_budget() -> None:
    jobs = Jobs([70, 30, 30, 30], [2, 2, 2, 2])
    run = simulate(SGLang(chunk_size=0), jobs, budget=61, memory="radix", block_size=1)
    assert [i.tokens for i in run.iterations[:2]] == [{0: 70}, {1: 30, 2: 30}]


def test_admission_counts_the_expected_rest_of_all_who_run() -> None:
    # Request 0 holds 10 and promises 0.7 · 40 = 28 of its limit of 40 (it has emitted nothing yet),
    # request 1 needs 10 + 10 + a page of 1: 21 < free - 28 as soon as there are 50 beside the 10.
    jobs = Jobs([10, 10], [40, 10], arrivals=[0, 0.5])

    def second(blocks: int) -> float | None:
        run = simulate(SGLang(), jobs, blocks=blocks, memory="radix", block_size=1)
        return run.requests[1].admitted

    # One token of the 40 is out by then: 0.7 · 39 = 27.3, and 21 < free - 27.3 from 49 free on.
    assert second(59) == 1.0
    assert second(58) != 1.0


def test_in_one_batch_a_whole_limit_is_promised() -> None:
    # 10 + 40 + 1 beside the first's 10 + 40 + 1, strictly less than what is left.
    jobs = Jobs([10, 10], [40, 40])
    run = simulate(SGLang(), jobs, blocks=102, memory="radix", block_size=1)
    assert run.iterations[0].admitted == [0]
    run = simulate(SGLang(), jobs, blocks=103, memory="radix", block_size=1)
    assert run.iterations[0].admitted == [0, 1]


def test_after_one_that_does_not_fit_nobody_is_looked_at_until_somebody_leaves() -> None:
    jobs = Jobs([10, 60, 2], [9, 9, 2], arrivals=[0, 1, 2])
    run = simulate(SGLang(), jobs, blocks=80, memory="radix", block_size=1)
    assert run.requests[2].admitted >= run.requests[0].finished, "strictly in line"  # type: ignore[operator]


def test_the_ratio_falls_with_decodes_and_is_reset_by_retraction() -> None:
    ratio = _NewTokenRatio(0.7)
    ratio.reset()
    assert ratio.value == 0.7
    for _ in range(300):
        ratio.note_decode()
    assert ratio.value == pytest.approx((0.7 + 0.098) / 2)
    for _ in range(600):
        ratio.note_decode()
    assert ratio.value == pytest.approx(0.098)
    ratio.note_retraction([Request(0, 0.0, 4, 99, _generated=10), Request(1, 0.0, 4, 100)])
    assert ratio.value == (10 + 2 * 20) / 200
    ratio.note_retraction([Request(0, 0.0, 4, 9)])
    assert ratio.value == 1.0


def test_who_has_emitted_least_is_retracted_then_the_longest_prompt() -> None:
    jobs = Jobs([6, 4, 8, 2], [30, 30, 30, 30], arrivals=[0, 1, 1, 5])
    policy = SGLang(conservativeness=0.0)
    run = simulate(policy, jobs, blocks=90, memory="radix", block_size=1, seats=8)
    retracted = [number for i in run.iterations for number in i.preempted]
    assert retracted[:2] == [3, 2], "3 came late; 1 and 2 have emitted the same, 2 is longer"
    assert run.requests[0].preemptions == 0


def test_a_retracted_request_waits_behind_all_others() -> None:
    jobs = Jobs([4, 4, 4], [30, 30, 3], arrivals=[0, 1, 5])
    policy = SGLang(conservativeness=0.0)
    run = simulate(policy, jobs, blocks=60, memory="radix", block_size=1, seats=2)
    assert next(i for i in run.iterations if i.preempted).preempted == [1]
    assert run.admissions() == [0, 1, 2, 1]


def test_lpm_takes_the_longest_cached_prefix_first() -> None:
    chains = [[1] * 20, [2] * 20, [1] * 20, [2] * 8]
    jobs = Jobs([20, 20, 20, 20], [9, 2, 2, 2], arrivals=[0, 1, 1, 1], chains=chains)
    order = {"seats": 2, "memory": "radix", "block_size": 1}
    assert simulate(SGLang(order="lpm"), jobs, **order).admissions() == [0, 2, 1, 3]  # type: ignore[arg-type]
    assert simulate(SGLang(), jobs, **order).admissions() == [0, 1, 2, 3]  # type: ignore[arg-type]


def test_lpm_prefills_one_of_those_that_begin_alike() -> None:
    chains = [[1] * 40, [1] * 40, [2] * 40, [3] * 31, [3] * 31]
    jobs = Jobs([41, 41, 41, 31, 31], [3] * 5, chains=chains)
    run = simulate(SGLang(order="lpm"), jobs, budget=200, memory="radix", block_size=1)
    # Put last, and then still admitted where all fits: the common part is computed twice.
    assert run.admissions() == [0, 2, 3, 4, 1]
    tight = simulate(SGLang("lpm", chunk_size=144), jobs, budget=200, memory="radix", block_size=1)
    assert tight.iterations[1].tokens == {1: 1}, "40 of 41 are cached by then"


def test_dfs_weight_follows_the_branches_that_most_wait_for() -> None:
    # 0 to 2 put three branches into the tree, two of which begin alike. Of who waits then, four
    # want 1…, among them two 13 and one 12, and two want 5….
    stems = [[1] * 9 + [2] * 9, [1] * 9 + [3] * 9, [5] * 18]
    wanted = [stems[2], stems[2], [1] * 9 + [7] * 9, stems[0], stems[1], stems[1], [8] * 18]
    chains = stems + wanted
    jobs = Jobs([19] * 10, [2] * 3 + [3] * 7, [0] * 3 + [1] * 7, chains=chains)
    sizes = {"seats": 10, "budget": 200, "memory": "radix", "block_size": 1}
    heaviest = simulate(SGLang("dfs-weight"), jobs, **sizes)  # type: ignore[arg-type]
    assert heaviest.admissions() == [0, 1, 2, 7, 8, 6, 5, 3, 4, 9], "5 matches 1… alone: last of it"
    longest = simulate(SGLang("lpm"), jobs, **sizes)  # type: ignore[arg-type]
    assert longest.admissions() == [0, 1, 2, 3, 4, 6, 7, 8, 5, 9]
    plain = simulate(SGLang("dfs-weight"), jobs, **{**sizes, "memory": "paged"})  # type: ignore[arg-type]
    assert plain.admissions() == list(range(10)), "nothing is cached"


@given(st.lists(st.lists(st.integers(0, 2), max_size=5), max_size=12))
def test_the_walk_is_that_of_a_tree_of_single_pages(sequences: list[list[int]]) -> None:
    def walk(group: list[int], depth: int) -> list[int]:
        branches: dict[int, list[int]] = {}
        for i in group:
            if len(sequences[i]) > depth:
                branches.setdefault(sequences[i][depth], []).append(i)
        order: list[int] = []
        for branch in sorted(branches.values(), key=lambda branch: (-len(branch), branch[0])):
            order += walk(branch, depth + 1)
        return order + [i for i in group if len(sequences[i]) == depth]

    prefixes: dict[tuple[int, ...], int] = {}

    def key(i: int, page: int) -> int:
        return prefixes.setdefault(tuple(sequences[i][: page + 1]), len(prefixes))

    order = depth_first([len(sequence) for sequence in sequences], key)
    assert order == walk(list(range(len(sequences))), 0)


def test_a_line_of_nested_prefixes_is_as_deep_as_it_is_long() -> None:
    count = 3000
    assert depth_first(range(1, count + 1), lambda i, page: page) == list(range(count))[::-1]


def test_lpm_goes_by_arrival_when_many_wait() -> None:
    count = 140
    chains = [[1] * 30] + [[2] * 20] * (count - 2) + [[1] * 30]
    prompts = [len(chain) for chain in chains]
    jobs = Jobs(prompts, [2] * count, arrivals=[0] + [1] * (count - 1), chains=chains)
    run = simulate(SGLang(order="lpm"), jobs, seats=2, memory="radix", block_size=1)
    first = run.admissions().index(count - 1)
    # The last is the best match as soon as no more than 128 wait.
    assert first in (count - 128, count - 127)


def test_lof_takes_the_largest_limit_first() -> None:
    jobs = Jobs([4] * 4, [2] * 4, limits=[5, 9, 7, 9], arrivals=[0, 0, 0, 0])
    run = simulate(SGLang(order="lof"), jobs, seats=1, memory="radix", block_size=1)
    assert run.admissions() == [1, 3, 2, 0]


def test_chunks_below_a_page_are_refused() -> None:
    run = simulate(SGLang(chunk_size=3), Jobs([4], [2]), block_size=4)
    assert run.requests[0].status is Status.REJECTED
    assert "pages of 4 tokens" in run.requests[0].reason


@pytest.mark.parametrize(
    "make",
    [
        lambda: SGLang(chunk_size=-1),
        lambda: SGLang(conservativeness=-0.1),
        lambda: SGLang(conservativeness=float("nan")),
    ],
)
def test_parameters_out_of_range_are_refused(make: type[SGLang]) -> None:
    with pytest.raises(ConfigError, match=r"policy 'sglang': \w+="):
        make()


@settings(max_examples=60)
@given(
    workloads(("radix", "paged", "paged,prefix_caching=true", "contiguous")),
    st.sampled_from(["fcfs", "lpm", "lof"]),
    st.sampled_from([0, 4, 20, 8192]),
    st.sampled_from([0.0, 0.3, 1.0]),
)
def test_everyone_finishes(
    workload: Workload, order: str, chunk_size: int, conservativeness: float
) -> None:
    policy = SGLang(order, chunk_size, conservativeness)  # type: ignore[arg-type]
    run = run_to_the_end(policy, workload)
    assert preemptions(run) <= 40 * len(run.requests)
    for iteration in run.iterations:
        decodes = [n for n, tokens, kind in iteration.scheduled if kind == "run" and tokens == 1]
        is_cut = chunk_size > 0  # and its last chunk may be a single token
        assert is_cut or not (decodes and iteration.admitted), "a prefill pauses all decodes"
