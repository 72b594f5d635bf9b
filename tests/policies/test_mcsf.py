"""`mcsf`: the feasibility test, no preemptions with exact lengths, and what wrong ones do."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.errors import ConfigError
from schedsim.policies import MCSF
from schedsim.policies.occupancy import Occupancy, Stay
from schedsim.predictors import Oracle, make_predictor
from schedsim.request import Status
from tests.core.harness import Jobs, simulate
from tests.policies.pressure import MEMORIES, THIRD, Load, loads, run_under_pressure


def held(stays: list[Stay], iteration: int, block_size: int) -> int:
    """Blocks held in an iteration, counted one by one."""
    return sum(
        -(-(stay.known + iteration - stay.start) // block_size)
        for stay in stays
        if stay.start <= iteration <= stay.end
    )


@given(
    stays=st.lists(
        st.tuples(st.integers(0, 20), st.integers(1, 20), st.integers(0, 20)), max_size=20
    ),
    block_size=st.sampled_from([1, 3, 4]),
    blocks=st.integers(1, 60),
    leaves=st.lists(st.integers(0, 4), min_size=20, max_size=20),
)
def test_occupancy_equals_brute_force_over_all_iterations(
    stays: list[tuple[int, int, int]], block_size: int, blocks: int, leaves: list[int]
) -> None:
    """Stays that fit are added in the order of their starts; some leave before their end."""
    occupancy = Occupancy(block_size)
    there: dict[int, Stay] = {}
    now = 0
    for number, (start, known, outputs) in enumerate(sorted(stays)):
        while now < start:
            now += 1
            for other in [n for n, stay in there.items() if stay.end < now or leaves[n] == 0]:
                occupancy.remove(other, now)
                del there[other]
        assert occupancy.overdue(now) == []
        stay = Stay(start, known, start + outputs)
        others = list(there.values())
        peak = max(held([*others, stay], t, block_size) for t in range(now, 100))
        assert occupancy.fits(stay, blocks) == (peak <= blocks)
        if peak <= blocks:
            occupancy.add(number, stay)
            there[number] = stay


def test_mcsf_admits_the_longest_prefix_that_memory_will_hold() -> None:
    # 20 slots. Ends in iterations 2, 4 and 6: 0 and 1 hold 6 + 6, 8 when they end; 2 adds 6, 8.
    jobs = Jobs([4] * 3, [3, 5, 7], limits=[90] * 3)
    run = simulate(MCSF(), jobs, blocks=20, block_size=1, predictor=Oracle())
    assert run.iterations[0].admitted == [0, 1, 2], "6 + 6 + 6, then 8 + 8, then 10"
    run = simulate(MCSF(), jobs, blocks=17, block_size=1, predictor=Oracle())
    assert run.iterations[0].admitted == [0, 1]
    assert run.iterations[1].admitted == [2], "one iteration later it is a token shorter"


def test_mcsf_does_not_look_past_the_first_that_does_not_fit() -> None:
    jobs = Jobs([4, 12, 2], [5, 6, 7], limits=[90] * 3)
    run = simulate(MCSF(), jobs, blocks=20, block_size=1, predictor=Oracle())
    assert run.iterations[0].admitted == [0]


def test_a_prompt_longer_than_what_decodes_leave_of_the_budget_waits() -> None:
    run = simulate(MCSF(), Jobs([1, 16], [3, 1], [0, 1]), budget=16, predictor=Oracle())
    assert [i.admitted for i in run.iterations] == [[0], [], [], [1]], "16 tokens beside no decode"
    run = simulate(MCSF(), Jobs([1, 20], [3, 1], [0, 1]), budget=16, predictor=Oracle())
    assert [i.admitted for i in run.iterations] == [[0], [], [], [1]], "more than the budget: alone"


def test_mcsf_protection_leaves_room() -> None:
    jobs = Jobs([4] * 3, [3, 5, 7], limits=[90] * 3)
    run = simulate(MCSF(protection=0.2), jobs, blocks=20, block_size=1, predictor=Oracle())
    assert run.iterations[0].admitted == [0, 1]


@THIRD
@given(load=loads(), block_size=st.sampled_from([1, 4]), lag=st.integers(0, 1), data=st.data())
def test_mcsf_with_exact_lengths_preempts_nobody(
    load: Load, block_size: int, lag: int, data: st.DataObject
) -> None:
    memory = data.draw(st.sampled_from(MEMORIES))
    longest = max(p + n + lag for p, n in zip(load.prompts, load.outputs, strict=True))
    blocks = data.draw(st.integers(-(-longest // block_size), 120))
    run = simulate(
        MCSF(),
        load.jobs(),
        blocks=blocks,
        block_size=block_size,
        seats=load.seats,
        budget=load.budget,
        memory=memory,
        decision_lag=lag,
        predictor=Oracle(),
    )
    assert all(r.status is Status.FINISHED for r in run.requests.values())
    assert not any(r.preemptions for r in run.requests.values())


def test_mcsf_with_exact_lengths_preempts_nobody_in_a_long_run_that_fills_the_cache() -> None:
    rng = np.random.default_rng(12)
    count = 600
    jobs = Jobs(
        rng.integers(1, 60, count).tolist(),
        rng.geometric(1 / 30, count).tolist(),
        np.cumsum(rng.exponential(1.5, count)).tolist(),
        limits=[500] * count,
    )
    run = simulate(
        MCSF(), jobs, blocks=200, seats=64, budget=None, predictor=Oracle(), check_every=None
    )
    assert not any(r.preemptions for r in run.requests.values())
    busiest = sorted(i.free_blocks for i in run.iterations)[: len(run.iterations) // 4]
    assert max(busiest) <= 10, "memory is what binds"


def test_mcsf_beats_first_come_first_served_under_pressure() -> None:
    rng = np.random.default_rng(13)
    jobs = Jobs([5] * 200, rng.geometric(1 / 30, 200).tolist(), limits=[500] * 200)
    means = []
    for spec in ("oracle", "rank,tau=0"):  # without knowledge its order is a chance one
        predictor = make_predictor(spec, np.random.default_rng(1), jobs.outputs)
        run = simulate(MCSF(), jobs, blocks=150, seats=99, predictor=predictor, check_every=None)
        means.append(float(run.result.requests["e2e_s"].mean()))
    assert means[0] < 0.75 * means[1]


@THIRD
@given(load=loads(), protection=st.sampled_from([0.0, 0.3]))
def test_mcsf_conserves_everything_whatever_the_predictions(load: Load, protection: float) -> None:
    policy = MCSF(protection)
    run_under_pressure(policy, load)
    assert not policy._running
    assert not policy._expected


@pytest.mark.parametrize("protection", [-0.1, 1.0, float("nan")])
def test_mcsf_refuses_a_protection_out_of_range(protection: float) -> None:
    with pytest.raises(ConfigError, match="policy 'mcsf': protection="):
        MCSF(protection)
