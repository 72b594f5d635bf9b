"""QoServe: the order of prefills, chunks by slack, relegation and delay; all by hand."""

import math
from dataclasses import replace

import pytest

from schedsim.costs.linear import LinearCost
from schedsim.errors import ConfigError
from schedsim.policies import QoServe
from schedsim.predictors import Oracle, Predictor
from tests.core.harness import Jobs, Run, simulate

MS_A_TOKEN = LinearCost(0.0, 1.0, 1.0, 0.0, 0.0)


def run(policy: QoServe, jobs: Jobs, *, seats: int = 8, predictor: Predictor | None = None) -> Run:
    """One millisecond a token, 2,560 tokens an iteration at most."""
    return simulate(
        policy,
        jobs,
        cost=MS_A_TOKEN,
        budget=None,
        blocks=8000,
        max_model_len=20_000,
        seats=seats,
        predictor=predictor,
    )


def policy_again(policy: QoServe) -> QoServe:
    """One with the same parameters: an object serves one run."""
    return replace(policy)


def test_alpha_goes_from_the_earliest_deadline_to_the_shortest_prompt() -> None:
    jobs = Jobs([300, 100, 200], [1, 1, 1], ttft_slos=[5.0, 6.0, 5.5])
    assert run(QoServe(alpha_ms=0), jobs, seats=1).admissions() == [0, 2, 1]
    # 8 ms a token: 5 + 2.4, 6 + 0.8, 5.5 + 1.6.
    assert run(QoServe(), jobs, seats=1).admissions() == [1, 2, 0]


def test_a_chunk_is_as_long_as_the_slack_of_the_most_urgent_decode() -> None:
    # Request 0 has its first token at 0.004 s; the next ones are due at 1 + 0.5·n s.
    jobs = Jobs([4, 6000], [4, 1], [0, 0.001], ttft_slos=[1, 30], tpot_slos=[0.5, math.nan])
    run_ = run(QoServe(margin=1.2), jobs)
    chunks = [iteration.tokens.get(1) for iteration in run_.iterations]
    # 1.496 s / 1.2 is 1,246 tokens: 9 times 128, of which the decode takes one.
    assert chunks[1] == 9 * 128 - 1
    # Then it is 1.156 s and the token after it due at 2.0 s: 703 tokens, 5 times 128.
    assert chunks[2] == 5 * 128 - 1
    assert chunks[4] == 2560, "no decode is left"


def test_a_late_first_token_moves_the_deadlines_of_those_after_it() -> None:
    jobs = Jobs([400, 2000], [4, 1], [0, 0.1], ttft_slos=[0.1, 30], tpot_slos=[0.5, math.nan])
    run_ = run(QoServe(relegation=False), jobs)
    # The first token came at 0.4 s, 0.3 s late: 0.5 s / 1.2 is 416 tokens, 3 times 128.
    assert run_.iterations[1].tokens == {0: 1, 1: 3 * 128 - 1}


def test_the_least_chunk_runs_where_no_slack_is_left() -> None:
    jobs = Jobs([4, 600], [9, 1], [0, 0.001], ttft_slos=[0.001, 30], tpot_slos=[0.01, math.nan])
    run_ = run(QoServe(relegation=False), jobs)
    assert run_.iterations[1].tokens == {0: 1, 1: 127}


def test_who_cannot_be_in_time_any_more_stands_behind_all_others() -> None:
    # At 1 ms a token request 1 would be done at 2.5 s at the earliest.
    jobs = Jobs([500, 2000, 500], [1] * 3, [0, 0.1, 0.2], ttft_slos=[5, 1, 9])
    assert run(QoServe(alpha_ms=0), jobs, seats=1).admissions() == [0, 2, 1]
    kept = run(QoServe(alpha_ms=0, relegation=False), jobs, seats=1)
    assert kept.admissions() == [0, 1, 2]


def test_the_relegated_go_by_priority() -> None:
    jobs = Jobs([100] * 4, [1] * 4, priorities=[0, 2, 1, 2], ttft_slos=[1, 0.01, 0.02, 0.005])
    assert run(QoServe(), jobs, seats=1).admissions() == [0, 2, 3, 1]


def test_a_prefill_under_way_waits_for_a_more_urgent_one_unless_that_makes_it_late() -> None:
    # Two iterations of 2,560 tokens each; request 1 comes during the first.
    patient = Jobs([5000, 100], [1, 1], [0, 1], ttft_slos=[20, 3])
    assert run(QoServe(), patient).iterations[1].tokens == {1: 100, 0: 2440}
    # It needs 2.44 s more and is due at 5.5 s, when an iteration more would be too much.
    pressed = Jobs([5000, 2600], [1, 1], [0, 1], ttft_slos=[5.5, 4.4])
    policy = QoServe(alpha_ms=0, relegation=False)
    assert run(policy, pressed).iterations[1].tokens == {0: 2440, 1: 120}


def test_who_has_no_target_is_due_early_enough_to_end_in_time() -> None:
    # 100 s to the end, of which 0.4 s for each of 200 expected tokens: due at 20 s. Request 1 comes
    # before it in the line with a target of 19 s, request 2 after it with one of 21 s.
    jobs = Jobs([100] * 3, [1] * 3, limits=[300] * 3, ttft_slos=[math.nan, 19, 21])
    policy = QoServe(alpha_ms=0, ttlt=100.0, expected_output=200)
    assert run(policy, jobs, seats=1).admissions() == [1, 0, 2]
    # Where the limit is 90 tokens, or these are predicted, it is due at 64 s.
    shorter = Jobs([100] * 3, [1] * 3, limits=[90] * 3, ttft_slos=[math.nan, 19, 21])
    assert run(policy_again(policy), shorter, seats=1).admissions() == [1, 2, 0]
    told = Jobs([100] * 3, [90, 1, 1], limits=[300] * 3, ttft_slos=[math.nan, 19, 21])
    assert run(policy_again(policy), told, seats=1, predictor=Oracle()).admissions() == [1, 2, 0]


def test_who_has_no_target_leaves_room_for_chunks_at_its_own_pace() -> None:
    # Its first token is due at 100 - 10 · 0.4 s and came early; the next ones every 0.4 s after
    # that. The slack of the interactive one, 1 + 0.5 · n s, is the smaller.
    jobs = Jobs([4, 4, 6000], [9, 9, 1], [0, 0, 0.001], ttft_slos=[1, math.nan, 30])
    jobs = replace(jobs, tpot_slos=[0.5, math.nan, math.nan])
    policy = QoServe(ttlt=100.0, expected_output=10)
    # 1.492 s / 1.2 is 1,243 tokens: 9 times 128, of which the decodes take two.
    assert run(policy, jobs).iterations[1].tokens == {0: 1, 1: 1, 2: 9 * 128 - 2}
    # Alone, and late: 1 s to the end is over before the first of 10 tokens at 0.4 s. It came at
    # 0.004 s, and the next is due 0.4 s later: 0.4 s / 1.2 is 333 tokens, twice 128.
    jobs = Jobs([4, 6000], [9, 1], [0, 0.001], ttft_slos=[math.nan, 30])
    policy = QoServe(ttlt=1.0, expected_output=10)
    assert run(policy, jobs).iterations[1].tokens == {0: 1, 1: 2 * 128 - 1}
    paced = replace(jobs, tpot_slos=[0.2, math.nan])
    assert run(policy_again(policy), paced).iterations[1].tokens == {0: 1, 1: 128 - 1}


def test_who_has_no_target_and_cannot_end_in_time_is_relegated() -> None:
    # Its 100 tokens at 0.4 s leave 1 s for the prompt of 2,000 at 1 ms.
    jobs = Jobs([500, 2000, 500], [1] * 3, limits=[100] * 3, ttft_slos=[5, math.nan, 9])
    policy = QoServe(alpha_ms=0, ttlt=41.0)
    assert run(policy, jobs, seats=1).admissions() == [0, 2, 1]
    assert run(QoServe(alpha_ms=0, ttlt=44.0), jobs, seats=1).admissions() == [1, 0, 2]


def test_prefills_hold_the_blocks_of_the_whole_prompt() -> None:
    jobs = Jobs([40, 40], [2, 2])
    run_ = simulate(QoServe(), jobs, blocks=21, budget=20)
    assert run_.iterations[0].admitted == [0]
    assert len(run_.iterations[0].blocks[0]) == 10
    assert run_.requests[1].admitted == 2.0, "10 of 21 blocks, one more for the decode"


def test_parameters_that_cannot_be_are_told() -> None:
    for parameters, told in (
        ({"alpha_ms": -1.0}, "alpha_ms=-1"),
        ({"max_chunk": 100}, "max_chunk=100"),
        ({"margin": 0.5}, "margin=0"),
        ({"ttlt": math.inf}, "ttlt=inf"),
        ({"batch_tpot": 0.0}, "batch_tpot=0"),
        ({"expected_output": 0}, "expected_output=0"),
    ):
        with pytest.raises(ConfigError, match=told):
            QoServe(**parameters)
