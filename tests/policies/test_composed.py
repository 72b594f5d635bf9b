"""`composed`: every part by its name, all of them together, and what is refused."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedsim.errors import ConfigError
from schedsim.policies import VLLM, Composed
from schedsim.policies.loading import make_policy
from schedsim.predictors import Oracle
from tests.core.harness import Jobs, Run, simulate
from tests.policies.strategies import COMBINATIONS
from tests.policies.workloads import Workload, preemptions, run_to_the_end, workloads

QUEUE = Jobs(
    [9, 5, 7, 3], [3, 6, 2, 8], arrivals=[0, 0.1, 0.2, 0.3], limits=[9] * 4, priorities=[1, 2, 0, 1]
)


def admissions(**parts: str) -> list[int]:
    run = simulate(Composed(**parts), QUEUE, seats=1, predictor=Oracle())  # type: ignore[arg-type]
    return run.admissions()


def test_orders() -> None:
    assert admissions() == [0, 1, 2, 3]
    assert admissions(order="sjf") == [0, 2, 1, 3]
    assert admissions(order="srtf") == [0, 2, 1, 3]
    assert admissions(order="shortest-prompt") == [0, 3, 1, 2]
    assert admissions(order="las") == [0, 1, 2, 3]
    assert admissions(order="priority") == [0, 2, 3, 1]


def first_admitted(admit: str, blocks: int) -> list[int]:
    jobs = Jobs([8, 16], [5, 5], limits=[13, 13])
    run = simulate(
        Composed(admit=admit), jobs, blocks=blocks, budget=12, block_size=4, predictor=Oracle()
    )
    return run.iterations[0].admitted


def test_admission_rules() -> None:
    assert first_admitted("chunk", 5) == [0, 1]
    # The cut prompt of 16 needs 4 blocks, and 2 are held.
    assert (first_admitted("whole", 5), first_admitted("whole", 6)) == ([0], [0, 1])
    # To their limits they need 5 and 7 blocks.
    assert (first_admitted("reserve", 11), first_admitted("reserve", 12)) == ([0], [0, 1])
    # At the end of both 12 and 20 tokens, each with up to 3 slots of a block beside.
    assert (first_admitted("peak", 9), first_admitted("peak", 10)) == ([0], [0, 1])


def first_victim(victim: str, order: str = "fcfs") -> list[int]:
    jobs = Jobs([9, 5, 7, 3], [12, 22, 18, 14], arrivals=[0, 1, 1, 2], priorities=[9, 1, 2, 3])
    policy = Composed(order, victim=victim)
    run = simulate(policy, jobs, blocks=60, block_size=1, predictor=Oracle())
    return next(i for i in run.iterations if i.preempted).preempted


def test_victim_rules() -> None:
    assert first_victim("last") == [3]
    assert first_victim("longest") == [1]
    assert first_victim("fewest") == [3]
    assert first_victim("largest") == [0]
    assert first_victim("worst", "priority") == [0]


def test_swapped_out_is_not_computed_again() -> None:
    jobs = Jobs([4] * 3, [12] * 3)

    def run(mode: str) -> Run:
        policy = make_policy(f"mode={mode}")
        return simulate(policy, jobs, blocks=6, memory="paged,host_blocks=20")

    again, swapped = run("recompute"), run("swap")
    assert preemptions(again) > 0
    assert preemptions(swapped) > 0
    assert any(request.recomputed_tokens for request in again.requests.values())
    assert not any(request.recomputed_tokens for request in swapped.requests.values())


def test_displacing_is_srpt_on_one_seat() -> None:
    """With swaps and one seat the shortest rest always runs: sojourns of SRPT by hand."""
    jobs = Jobs([1] * 3, [10, 3, 4], arrivals=[0, 2, 3])
    policy = make_policy("order=srtf,victim=worst,mode=swap,displace=true")
    run = simulate(policy, jobs, seats=1, memory="paged,host_blocks=40", predictor=Oracle())
    assert [run.requests[number].finished for number in range(3)] == [17.0, 5.0, 9.0]


def test_nobody_is_displaced_in_vain() -> None:
    # Request 2 is the shortest, but too long a prompt for what 1 holds beside 0, as short as it.
    jobs = Jobs([20, 4, 20], [4, 12, 4], arrivals=[0, 0, 1])
    policy = Composed("sjf", victim="worst", displace=True)
    run = simulate(policy, jobs, blocks=9, predictor=Oracle())
    assert run.requests[1].preemptions == 0
    roomy = simulate(
        policy.__class__("sjf", victim="worst", displace=True), jobs, blocks=11, predictor=Oracle()
    )
    assert roomy.requests[1].preemptions == 1


def test_the_default_composition_is_vllm() -> None:
    jobs = Jobs(
        [9, 5, 7, 3] * 3, [12, 22, 18, 14] * 3, arrivals=[0, 1, 1, 2, 2, 2, 3, 4, 5, 6, 7, 8]
    )
    ours = simulate(Composed(), jobs, blocks=20, budget=12)
    theirs = simulate(VLLM(), jobs, blocks=20, budget=12)
    assert preemptions(ours) > 0
    assert ours.iterations == theirs.iterations


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ("order=fcfs,displace=true,victim=worst", "who runs came before who waits"),
        ("order=las,displace=true,victim=worst", "has a quantum"),
        ("order=srtf,displace=true", "displace=true and victim=last"),
        ("order=srtf,admit=reserve,victim=longest", "admit=reserve and victim=longest: nobody"),
        ("admit=reserve,mode=swap", "admit=reserve and mode=swap: nobody"),
        ("order=srpt", "unknown order 'srpt'. Did you mean 'srtf'"),
        ("admit=limit", "unknown admit 'limit'"),
        ("victim=newest", "unknown victim 'newest'"),
        ("mode=keep", "must be one of recompute, swap"),
        ("ordr=srtf", "no parameter 'ordr'. Did you mean 'order'"),
        ("order=srtf,order=sjf", "stands twice"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(spec: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        make_policy(spec)


@settings(max_examples=150)
@given(
    workloads(
        ("paged", "paged,host_blocks=30", "paged,prefix_caching=true,host_blocks=9", "radix")
    ),
    st.sampled_from(COMBINATIONS),
    st.booleans(),
)
def test_every_combination_comes_to_its_end(
    workload: Workload, parts: tuple[str, str, str, str, bool], predicts: bool
) -> None:
    run = run_to_the_end(Composed(*parts), workload, predicts)  # type: ignore[arg-type]
    assert preemptions(run) <= 40 * len(run.requests)
    assert parts[1] != "reserve" or parts[4] or preemptions(run) == 0
