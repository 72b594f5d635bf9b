"""`tgi`: a decoding batch, new requests prefilled apart, everything reserved."""

import pytest
from hypothesis import given

from schedsim.errors import ConfigError
from schedsim.policies import TGI
from schedsim.request import Status
from tests.core.harness import Jobs, Run, simulate
from tests.policies.workloads import Workload, preemptions, run_to_the_end, workloads


def kinds(run: Run) -> str:
    """P for an iteration that prefills, D for one that decodes."""
    return "".join("P" if iteration.admitted else "D" for iteration in run.iterations)


def test_a_prefill_pauses_the_batch_and_a_decode_follows_it() -> None:
    jobs = Jobs([4] * 6, [4] * 6, arrivals=[0, 1, 1, 2, 2, 2])
    run = simulate(TGI(waiting_served_ratio=1.0), jobs, seats=16)
    # The first batch is alone with its prefill, so the next prefill need not wait for a decode.
    assert kinds(run)[:4] == "PPDP"
    assert [i.admitted for i in run.iterations[:4]] == [[0], [1, 2], [], [3, 4, 5]]
    assert run.iterations[1].tokens == {1: 4, 2: 4}, "request 0 pauses"
    assert run.iterations[2].tokens == {0: 1, 1: 1, 2: 1}


def test_too_few_wait_for_max_waiting_tokens() -> None:
    jobs = Jobs([4] * 5, [30] * 5, arrivals=[0, 0, 0, 0, 3])
    run = simulate(TGI(waiting_served_ratio=0.5, max_waiting_tokens=10), jobs)
    # int(4 · 0.5) = 2 would have to wait; after 1 prefill and 9 decodes one is enough.
    assert kinds(run)[:12] == "P" + "D" * 9 + "PD"
    eager = simulate(TGI(waiting_served_ratio=0.25, max_waiting_tokens=10), jobs)
    assert kinds(eager)[:5] == "PDDPD"


def test_the_batch_decodes_where_free_blocks_are_not_in_one_piece() -> None:
    jobs = Jobs([8] * 4, [8, 20, 8, 16], arrivals=[0, 0, 0, 2])
    run = simulate(TGI(), jobs, blocks=15, memory="contiguous")
    # 0 and 2 leave holes of 4 blocks on both sides of 1; request 3 needs 6 in one.
    assert kinds(run)[8:21] == "D" * 12 + "P"
    assert run.iterations[8].free_blocks == 8


def test_those_who_wait_must_fit_together_to_be_enough() -> None:
    jobs = Jobs([4, 4, 8, 30], [9, 9, 9, 9], arrivals=[0, 0, 1, 1])
    run = simulate(TGI(waiting_served_ratio=1.0, max_waiting_tokens=5), jobs, budget=32)
    assert kinds(run)[:7] == "PDDDDPD", "8 and 30 exceed the prefill budget"
    assert run.iterations[5].admitted == [2]


def test_prompt_and_output_limit_are_allocated_at_admission() -> None:
    jobs = Jobs([4, 4], [2, 2], limits=[9, 9])
    run = simulate(TGI(), jobs, blocks=5)
    assert len(run.iterations[0].blocks[0]) == 3, "4 + 9 - 1 tokens"
    assert run.requests[1].admitted == run.requests[0].finished, "3 + 3 blocks are too many"


def test_chunking_mixes_and_cuts_the_last_prompt_to_the_budget() -> None:
    jobs = Jobs([4, 30, 30], [9, 2, 2], arrivals=[0, 1, 1])
    run = simulate(TGI(chunking=True), jobs, budget=40)
    assert [i.tokens for i in run.iterations[:3]] == [
        {0: 4},
        {0: 1, 1: 30, 2: 9},
        {0: 1, 1: 1, 2: 21},
    ]


def test_what_could_never_be_admitted_is_rejected() -> None:
    run = simulate(TGI(), Jobs([30, 4], [1, 1], limits=[1, 40]), budget=20, blocks=10)
    assert [r.status for r in run.requests.values()] == [Status.REJECTED] * 2
    assert "exceed" in run.requests[0].reason
    assert "11 blocks, the cache has 10" in run.requests[1].reason


@pytest.mark.parametrize(
    "make",
    [
        lambda: TGI(waiting_served_ratio=-1.0),
        lambda: TGI(waiting_served_ratio=float("nan")),
        lambda: TGI(max_waiting_tokens=-1),
    ],
)
def test_parameters_out_of_range_are_refused(make: type[TGI]) -> None:
    with pytest.raises(ConfigError, match=r"policy 'tgi': \w+="):
        make()


@pytest.mark.parametrize("chunking", [False, True])
def test_nobody_is_ever_preempted(chunking: bool) -> None:
    @given(workloads())
    def ends(workload: Workload) -> None:
        run = run_to_the_end(TGI(1.2, 3, chunking), workload)
        assert preemptions(run) == 0
        assert run.admissions() == sorted(run.admissions()), "first come, first served"

    ends()
