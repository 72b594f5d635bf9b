"""`past-future`: admission by the peak of memory that is to come."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedsim.errors import ConfigError
from schedsim.policies import VLLM, PastFuture
from schedsim.policies.peak import expected_output, growth
from schedsim.predictors import Oracle
from schedsim.request import Request
from tests.core.harness import Jobs, simulate
from tests.policies.workloads import Workload, preemptions, run_to_the_end, workloads

GROWTHS = st.lists(st.tuples(st.integers(0, 30), st.integers(1, 40)), max_size=12)


@given(GROWTHS)
def test_the_peak_is_that_of_running_forward_token_by_token(pairs: list[tuple[int, int]]) -> None:
    forward = [
        sum(tokens + now for left, tokens in pairs if now <= left)
        for now in range(max((left for left, _ in pairs), default=0) + 1)
    ]
    held = [tokens for _, tokens in pairs]
    outputs = [left + 1 for left, _ in pairs]
    assert growth(held, held, outputs, 1).peak() == max(forward)


def test_a_request_counts_with_its_last_block_and_without_its_last_token() -> None:
    assert [part.tolist() for part in growth([10], [10], [5], 4)] == [[4], [13]]
    assert [part.tolist() for part in growth([10], [12], [5], 1, late=6)] == [[8], [12]]


@given(
    history=st.lists(st.integers(1, 60), min_size=2, max_size=30),
    generated=st.integers(0, 70),
    limit=st.integers(1, 80),
    seed=st.integers(0, 2**32 - 1),
)
def test_one_length_is_drawn_as_many_are(
    history: list[int], generated: int, limit: int, seed: int
) -> None:
    finished = np.sort(np.array(history, dtype=np.int64))
    alone, among = PastFuture(seed=seed), PastFuture(seed=seed)
    for _ in range(20):
        drawn = among._draw(np.array([generated]), np.array([limit]), finished)
        assert [alone._draw_one(generated, limit, finished)] == drawn.tolist()


def test_a_prediction_that_is_outgrown_doubles_up_to_the_limit() -> None:
    request = Request(0, 0.0, 10, 30, predicted_output=6.4)
    assert expected_output(request) == 6
    request._generated = 13
    assert expected_output(request) == 24
    request._generated = 24
    assert expected_output(request) == 30
    assert expected_output(Request(0, 0.0, 10, 30)) == 30


def test_a_request_is_admitted_when_the_peak_with_it_fits() -> None:
    # Together 4 + 9 and 4 + 4 slots at the end of the shorter: 16 at its end; alone 12 and 8.
    jobs = Jobs([4, 4], [9, 5])

    def admitted(blocks: int) -> list[int]:
        run = simulate(
            PastFuture("predicted", margin=0),
            jobs,
            blocks=blocks,
            block_size=1,
            predictor=Oracle(),
        )
        assert preemptions(run) == 0
        return run.iterations[0].admitted

    assert admitted(16) == [0, 1]
    assert admitted(15) == [0]


def test_prompts_are_computed_alone_and_whole() -> None:
    jobs = Jobs([4, 30, 30], [9, 2, 2], arrivals=[0, 1, 1])
    run = simulate(PastFuture("conservative"), jobs, budget=40)
    assert [i.tokens for i in run.iterations[:4]] == [{0: 4}, {1: 30}, {2: 30}, {0: 1, 1: 1, 2: 1}]


@settings(max_examples=80)
@given(workloads())
def test_exact_lengths_never_preempt(workload: Workload) -> None:
    late = workload.engine["decision_lag"]
    run = run_to_the_end(PastFuture("predicted", margin=late), workload, oracle=True)
    assert preemptions(run) == 0


@settings(max_examples=40)
@given(workloads())
def test_reserving_to_the_limit_never_preempts(workload: Workload) -> None:
    run = run_to_the_end(PastFuture("conservative", margin=1), workload)
    assert preemptions(run) == 0


@settings(max_examples=40)
@given(workloads(("paged", "paged,prefix_caching=true", "contiguous", "radix")))
def test_samples_end_whatever_they_say(workload: Workload) -> None:
    run_to_the_end(PastFuture("sampled", window=4, margin=0, reserved=0.0), workload)


def long_tailed(count: int) -> Jobs:
    rng = np.random.default_rng(3)
    outputs = np.clip(rng.exponential(30.0, count).astype(int), 1, 200).tolist()
    return Jobs([20] * count, outputs, limits=[200] * count)


def test_it_stands_between_the_cautious_and_the_bold() -> None:
    """Fewer preemptions than admission on the prompt alone, more memory used than with limits."""
    jobs = long_tailed(80)

    def busy(policy: PastFuture | VLLM, oracle: bool = False) -> tuple[int, int]:
        run = simulate(
            policy,
            jobs,
            blocks=30,
            block_size=16,
            seats=64,
            budget=512,
            check_every=None,
            predictor=Oracle() if oracle else None,
        )
        return preemptions(run), len(run.iterations)

    bold, sampled = busy(VLLM()), busy(PastFuture("sampled", window=20))
    cautious = busy(PastFuture("conservative"))
    exact = busy(PastFuture("predicted", margin=0), oracle=True)
    assert cautious[0] == exact[0] == 0
    assert sampled[0] < bold[0] / 10
    assert exact[1] < sampled[1] < 0.8 * cautious[1]


def test_samples_are_those_of_the_seed() -> None:
    jobs = long_tailed(40)

    def decisions(seed: int) -> list[list[int]]:
        policy = PastFuture("sampled", window=20, seed=seed)
        run = simulate(policy, jobs, blocks=30, block_size=16, seats=64, check_every=None)
        return [iteration.admitted for iteration in run.iterations]

    assert decisions(1) == decisions(1)
    assert decisions(1) != decisions(2)


@pytest.mark.parametrize(
    "make",
    [
        lambda: PastFuture(window=1),
        lambda: PastFuture(margin=-1),
        lambda: PastFuture(seed=-1),
        lambda: PastFuture(reserved=1.0),
        lambda: PastFuture(reserved=float("nan")),
    ],
)
def test_parameters_out_of_range_are_refused(make: type[PastFuture]) -> None:
    with pytest.raises(ConfigError, match=r"policy 'past-future': \w+="):
        make()
