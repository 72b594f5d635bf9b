"""`ltr`: order by score alone, and the starvation guard."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.errors import ConfigError
from schedsim.policies import LTR
from schedsim.predictors import Oracle, make_predictor
from tests.core.harness import Jobs, simulate
from tests.policies.pressure import THIRD, Load, loads, run_under_pressure

HOST = "paged,host_blocks=1000"


def test_ltr_ranks_by_the_score_at_arrival_and_not_by_what_is_left() -> None:
    # At 8 s request 0 has 2 tokens left and request 1 has 5: the score says 5 before 10.
    jobs = Jobs([4] * 2, [10, 5], arrivals=[0, 8], limits=[90] * 2)
    run = simulate(LTR(), jobs, seats=1, predictor=Oracle(), memory=HOST)
    assert run.iterations[8].preempted == [0]
    assert run.admissions() == [0, 1, 0]
    assert run.requests[0].recomputed_tokens == 0


def test_ltr_only_the_order_of_scores_matters() -> None:
    outputs = [int(n) for n in np.random.default_rng(4).permutation(np.arange(2, 42))]
    arrivals = np.sort(np.random.default_rng(5).integers(0, 300, 40)).tolist()
    decisions = []
    for scale in (1, 7):
        lengths = [n * scale for n in outputs]

        class Scaled(Oracle):
            def predict(self, request, output_tokens):  # type: ignore[no-untyped-def]
                return float(lengths[request.id])  # noqa: B023 (used up before the next one)

        jobs = Jobs([4] * 40, outputs, arrivals, limits=[90] * 40)
        run = simulate(LTR(), jobs, seats=3, predictor=Scaled(), memory=HOST)
        decisions.append([(i.admitted, i.preempted) for i in run.iterations])
    assert decisions[0] == decisions[1]


def starving() -> Jobs:
    """Request 0 is long; short ones come as fast as they are served."""
    short = 40
    arrivals = [0, *range(1, 1 + 2 * short, 2)]
    return Jobs([1] * (short + 1), [9, *[2] * short], arrivals, limits=[90] * (short + 1))


def test_ltr_promotes_who_has_waited_and_demotes_it_after_its_period() -> None:
    run = simulate(LTR(starvation=None), starving(), seats=1, predictor=Oracle(), memory=HOST)
    assert run.requests[0].finished == 89.0
    run = simulate(LTR(10, 3), starving(), seats=1, predictor=Oracle(), memory=HOST)
    served = [i.number for i in run.iterations if 0 in i.tokens]
    assert served[0] == 0
    # Displaced at 1 it waits 10 iterations, takes the seat at 11 and has it for 3.
    assert served[1:4] == [11, 12, 13]
    assert served[4] - 14 == pytest.approx(10, abs=1)


@THIRD
@given(
    load=loads(),
    guard=st.sampled_from([(None, 1), (3, 2), (10, 20)]),
    swaps=st.booleans(),
)
def test_ltr_conserves_everything(load: Load, guard: tuple[int | None, int], swaps: bool) -> None:
    policy = LTR(*guard, preemption="swap" if swaps else "recompute")
    run_under_pressure(policy, load)
    policy.check()
    assert not policy._guards


@pytest.mark.parametrize(("starvation", "period"), [(0, 5), (5, 0)])
def test_ltr_refuses_counts_below_one(starvation: int, period: int) -> None:
    with pytest.raises(ConfigError, match="policy 'ltr': "):
        LTR(starvation, period)


def test_ltr_with_a_better_ranking_has_a_shorter_mean() -> None:
    """The claim of the paper: what counts is Kendall's tau."""
    generator = np.random.default_rng(8)
    outputs = generator.geometric(1 / 20, 300).tolist()
    arrivals = np.cumsum(generator.exponential(22.0, 300)).tolist()
    jobs = Jobs([1] * 300, outputs, arrivals, limits=[400] * 300)
    means = []
    for tau in (0.0, 0.5, 1.0):
        predictor = make_predictor(f"rank,tau={tau}", np.random.default_rng(2), outputs)
        run = simulate(
            LTR(starvation=None),
            jobs,
            seats=1,
            predictor=predictor,
            memory="paged,host_blocks=100000",
            blocks=3000,
            check_every=None,
        )
        means.append(float(run.result.requests["e2e_s"].mean()))
    assert means[0] > 1.2 * means[1] > 1.2 * 1.2 * means[2]
