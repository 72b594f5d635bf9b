"""`orca`: iteration-level, whole prompts, everything reserved."""

from hypothesis import given

from schedsim.policies import Orca, Static
from schedsim.request import Status
from tests.core.harness import Jobs, simulate
from tests.policies.workloads import Workload, preemptions, run_to_the_end, workloads


def test_a_request_joins_and_leaves_between_iterations() -> None:
    jobs = Jobs([4, 6, 5], [2, 4, 3], arrivals=[0, 0, 1])
    run = simulate(Orca(reserve="limit"), jobs)
    assert [i.tokens for i in run.iterations] == [
        {0: 4, 1: 6},
        {0: 1, 1: 1, 2: 5},
        {1: 1, 2: 1},
        {1: 1, 2: 1},
    ]


def test_prompts_are_never_cut_and_the_token_budget_is_not_used() -> None:
    run = simulate(Orca(), Jobs([70, 80], [2, 2]), budget=16, max_model_len=100)
    assert run.iterations[0].tokens == {0: 70, 1: 80}


def test_every_request_takes_the_longest_context_or_its_own_limit() -> None:
    jobs = Jobs([4, 4, 4], [2, 2, 2], limits=[9, 9, 9])
    longest = simulate(Orca(), jobs, blocks=20, max_model_len=40)
    assert [i.admitted for i in longest.iterations if i.admitted] == [[0, 1], [2]]
    assert [len(blocks) for blocks in longest.iterations[0].blocks.values()] == [10, 10]
    own = simulate(Orca(reserve="limit"), jobs, blocks=20, max_model_len=40)
    assert own.iterations[0].admitted == [0, 1, 2]
    assert [len(blocks) for blocks in own.iterations[0].blocks.values()] == [3, 3, 3]


def test_the_first_that_does_not_fit_ends_admission() -> None:
    jobs = Jobs([8, 20, 4], [9, 2, 2])
    run = simulate(Orca(reserve="limit"), jobs, blocks=8)
    assert run.admissions() == [0, 1, 2]
    assert run.requests[2].admitted == run.requests[1].admitted == run.requests[0].finished


def test_what_could_never_reserve_is_rejected() -> None:
    run = simulate(Orca(), Jobs([4], [2]), blocks=20, max_model_len=100)
    assert run.requests[0].status is Status.REJECTED
    assert "reserve 25 blocks, the cache has 20" in run.requests[0].reason
    # 5 blocks are a chunk of 8 in a buddy allocator, and the cache of 7 has none.
    jobs = Jobs([16], [2], limits=[5])
    run = simulate(Orca(reserve="limit"), jobs, blocks=7, memory="buddy,reserve=exact")
    assert run.requests[0].status is Status.REJECTED


def test_no_seat_idles_until_the_longest_ends_as_in_a_static_batch() -> None:
    jobs = Jobs([1] * 8, [2, 2, 2, 20, 2, 2, 2, 20])
    static = simulate(Static(batch_size=4), jobs, seats=4)
    orca = simulate(Orca(), jobs, seats=4, blocks=5000)
    assert len(static.iterations) == 40
    assert len(orca.iterations) == 24, "the last long one starts when three short ones ended twice"


@given(workloads(("paged", "paged,prefix_caching=true", "contiguous", "radix")))
def test_nobody_is_ever_preempted(workload: Workload) -> None:
    run = run_to_the_end(Orca(reserve="limit"), workload)
    assert preemptions(run) == 0
    assert run.admissions() == sorted(run.admissions()), "first come, first served"
