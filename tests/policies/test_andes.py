"""Andes: who is worth its blocks, who is evicted and how often; all by hand."""

import pytest

from schedsim.errors import ConfigError
from schedsim.policies import VLLM, Andes
from tests.core.harness import Jobs, simulate

SWAP = "paged,host_blocks=100"


def test_while_there_is_room_for_all_it_is_first_come_first_served() -> None:
    jobs = Jobs([9, 5, 7, 30], [8, 3, 9, 4], [0, 0, 2, 3])
    andes, vllm = simulate(Andes(), jobs), simulate(VLLM(), jobs)
    assert [i.tokens for i in andes.iterations] == [i.tokens for i in vllm.iterations]


def test_who_is_ahead_of_its_reader_makes_place_for_who_waits() -> None:
    # Request 0 reads a token in 8 s and gets one a second; request 1 came at 5 s.
    jobs = Jobs([4, 4], [20, 4], [0, 5], ttft_slos=[1, 1], tpot_slos=[8, 1])
    policy = Andes(horizon=4, interval=1)
    run = simulate(policy, jobs, seats=1, memory=SWAP)
    assert run.requests[1].first_token == 6.0
    assert run.requests[0].preemptions == 1
    assert run.requests[0].recomputed_tokens == 0
    assert simulate(VLLM(), jobs, seats=1).requests[1].first_token == 21.0


def test_who_is_behind_its_reader_stays() -> None:
    # Served, both would gain; request 0 has fewer blocks.
    jobs = Jobs([4, 24], [8, 4], [0, 3], ttft_slos=[1, 1], tpot_slos=[0.5, 0.5])
    run = simulate(Andes(horizon=4, interval=1), jobs, seats=1, memory=SWAP)
    assert run.requests[0].preemptions == 0


def test_nobody_is_preempted_more_often_than_the_cap() -> None:
    count = 12
    jobs = Jobs([4] * count, [12] * count, list(range(count)), tpot_slos=[3.0] * count)

    def most(cap: int) -> int:
        policy = Andes(horizon=3, interval=1, preemption_cap=cap)
        run = simulate(policy, jobs, seats=2, memory=SWAP)
        return max(request.preemptions for request in run.requests.values())

    assert [most(cap) for cap in (0, 1, 2)] == [0, 1, 2]


def test_it_chooses_every_fifth_iteration_while_memory_is_short() -> None:
    jobs = Jobs([4, 4], [30, 4], [0, 0.5], ttft_slos=[1, 1], tpot_slos=[8, 1])
    run = simulate(Andes(horizon=4), jobs, seats=1, memory=SWAP)
    assert next(i.number for i in run.iterations if i.preempted) == 4


def test_without_a_host_tier_the_evicted_are_recomputed() -> None:
    jobs = Jobs([4, 4], [20, 4], [0, 5], ttft_slos=[1, 1], tpot_slos=[8, 1])
    run = simulate(Andes(horizon=4, interval=1), jobs, seats=1)
    assert run.requests[0].recomputed_tokens == 8


def test_who_has_the_least_value_a_block_gives_them() -> None:
    # All are behind; the long one gains least a block.
    jobs = Jobs([4, 20, 4], [12, 12, 12], ttft_slos=[1] * 3, tpot_slos=[0.2] * 3)
    run = simulate(Andes(horizon=4, interval=100), jobs, blocks=8)
    assert next(i.preempted for i in run.iterations if i.preempted) == [1]


def test_streams_are_better_than_first_come_first_served_under_a_burst() -> None:
    # 24 readers of 2 s a token, 6 seats: who is served all along gets far ahead of its reader.
    count = 24
    jobs = Jobs([4] * count, [20] * count, ttft_slos=[4.0] * count, tpot_slos=[2.0] * count)

    def mean_ttft(policy: Andes | VLLM) -> float:
        run = simulate(policy, jobs, seats=6, memory=SWAP)
        return sum(r.first_token or 0.0 for r in run.requests.values()) / count

    assert mean_ttft(Andes(horizon=4, interval=1)) < 0.6 * mean_ttft(VLLM())


def test_who_ends_in_line_makes_place_for_the_next() -> None:
    # Request 0 is evicted with its last token in flight, and the window is empty when that comes.
    jobs = Jobs(
        [4] * 3, [4, 2, 4], [0, 3, 3], limits=[10] * 3, ttft_slos=[1] * 3, tpot_slos=[1, 8, 8]
    )
    policy = Andes(horizon=4, interval=1, window=1)
    run = simulate(policy, jobs, seats=1, decision_lag=1)
    assert run.requests[0].preemptions == 1
    assert run.admissions() == [0, 1, 2], "0 ends without another turn"


def test_parameters_that_cannot_be_are_told() -> None:
    for parameter, value in (("ttft", 0.0), ("interval", 0), ("window", 0), ("contention", 2.0)):
        with pytest.raises(ConfigError, match=f"{parameter}={value}".replace(".", r"\.")):
            Andes(**{parameter: value})
