"""`multi-bin`: bins, static batches from them, and the closed form; the continuous form."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.errors import ConfigError
from schedsim.policies import MultiBin, MultiBinContinuous, Policy
from schedsim.policies.multi_bin import Binning
from schedsim.predictors import Oracle
from schedsim.request import Request
from tests.core.harness import Jobs, Run, simulate
from tests.policies.pressure import THIRD, Load, loads, run_under_pressure
from tests.theory.queueing import constant_step, run_queue


def batches(run: Run) -> list[tuple[float, list[int]]]:
    return [(i.start, i.admitted) for i in run.iterations if i.admitted]


def test_multi_bin_forms_batches_inside_bins_first_formed_first_served() -> None:
    #                     bin 0: 0, 2, 5   bin 1: 1, 3, 4
    jobs = Jobs([4] * 6, [2, 20, 3, 20, 21, 2], arrivals=[0, 1, 2, 3, 4, 5], limits=[30] * 6)
    run = simulate(MultiBin(2, 50.0, 2, "10"), jobs, predictor=Oracle())
    assert batches(run) == [(2.0, [0, 2]), (5.0, [1, 3]), (54.0, [4]), (75.0, [5])]


def test_multi_bin_an_overdue_batch_goes_before_one_that_is_formed_later() -> None:
    jobs = Jobs([4] * 5, [9, 9, 2, 9, 9], arrivals=[0, 0, 1, 4, 4], limits=[30] * 5)
    run = simulate(MultiBin(2, 2.0, 2, "5"), jobs, predictor=Oracle())
    assert batches(run) == [(0.0, [0, 1]), (9.0, [2]), (11.0, [3, 4])]
    run = simulate(MultiBin(2, 3.5, 2, "5"), jobs, predictor=Oracle())
    assert batches(run) == [(0.0, [0, 1]), (9.0, [3, 4]), (18.0, [2])]


def test_multi_bin_what_does_not_fit_is_the_next_batch() -> None:
    jobs = Jobs([4] * 4, [5] * 4, limits=[5] * 4)
    run = simulate(MultiBin(4, 1.0, 1), jobs, blocks=5, predictor=Oracle())  # 2 blocks each
    assert [admitted for _, admitted in batches(run)] == [[0, 1], [2, 3]]
    run = simulate(MultiBin(4, 1.0, 1), jobs, seats=3, predictor=Oracle())
    assert [admitted for _, admitted in batches(run)] == [[0, 1, 2], [3]]


def test_bins_without_edges_hold_equal_shares_of_what_was_seen() -> None:
    binning = Binning("test", 4, "")
    lengths = np.random.default_rng(1).lognormal(4, 1, 4000)
    found = [
        binning.assign(Request(n, 0.0, 1, 1, predicted_output=float(x)))
        for n, x in enumerate(lengths)
    ]
    assert np.bincount(found).tolist() == pytest.approx([1000] * 4, abs=4 * (4000 * 3 / 16) ** 0.5)
    late = np.array(found[1000:])
    edges = np.quantile(lengths, [0.25, 0.5, 0.75])
    assert np.mean(late == np.searchsorted(edges, lengths[1000:])) > 0.95


@pytest.mark.parametrize("bins", [1, 2, 4, 8])
def test_multi_bin_mean_batch_time_is_the_closed_form(bins: int) -> None:
    """Lengths uniform on [a, b], k equal bins: a + w(k - 1)/2 + wB/(B + 1), w = (b - a)/k."""
    low, span, size, count = 20, 160, 8, 240
    rng = np.random.default_rng(70 + bins)
    lengths = np.floor(rng.uniform(low, low + span, size * count)).astype(int)
    width = span / bins
    edges = "/".join(str(low + width * n) for n in range(1, bins))
    policy = MultiBin(size, 1e5, bins, edges)
    result = run_queue(np.zeros(size * count), lengths, constant_step(1.0), size, policy, Oracle())
    batches = result.requests.groupby("admitted")["finished"]
    full = batches.max()[batches.size() == size]
    times = (full - full.index).to_numpy()
    expected = low - 0.5 + width * (bins - 1) / 2 + width * size / (size + 1)  # floor: half a token
    # Batches are of bins in chance proportions, maxima scatter by 0.099·w: four standard errors.
    error = 4 * np.hypot(width * ((bins**2 - 1) / 12) ** 0.5, 0.099 * width) / len(times) ** 0.5
    assert len(times) >= count - bins
    assert times.mean() == pytest.approx(expected, abs=error)
    assert error < 0.15 * expected


def test_multi_bin_more_bins_serve_faster_under_static_batches_only() -> None:
    """The shape of their result: the gain is that of static batches."""
    lengths = np.random.default_rng(3).integers(10, 200, 800)

    def makespan(policy: Policy) -> float:
        result = run_queue(np.zeros(800), lengths, constant_step(1.0), 8, policy, Oracle())
        return float(result.requests["finished"].max())

    static = [makespan(MultiBin(8, 50.0, bins)) for bins in (1, 8)]
    continuous = [makespan(MultiBinContinuous(8, bins)) for bins in (1, 8)]
    assert static[0] > 1.4 * static[1]
    assert continuous[0] == pytest.approx(continuous[1], rel=0.02)
    assert continuous[1] < static[1]


def test_multi_bin_continuous_stays_with_a_bin_for_its_turn() -> None:
    jobs = Jobs([4] * 6, [2, 20, 3, 20, 4, 5], limits=[30] * 6)
    run = simulate(MultiBinContinuous(2, 2, "10"), jobs, seats=1, predictor=Oracle())
    assert run.admissions() == [0, 2, 1, 3, 4, 5]
    run = simulate(MultiBinContinuous(9, 2, "10"), jobs, seats=1, predictor=Oracle())
    assert run.admissions() == [0, 2, 4, 5, 1, 3]


@THIRD
@given(load=loads(), size=st.integers(1, 6), bins=st.integers(1, 4), wait=st.sampled_from([0, 9]))
def test_multi_bin_conserves_everything(load: Load, size: int, bins: int, wait: int) -> None:
    policy = MultiBin(size, float(wait), bins)
    run = run_under_pressure(policy, load)
    assert not any(request.preemptions for request in run.requests.values())
    assert not policy._bin_of
    assert not policy._formed
    run_under_pressure(MultiBinContinuous(size, bins), load)


@pytest.mark.parametrize(
    ("parameters", "told"),
    [
        ({"bins": 0}, "bins=0 is below 1"),
        ({"bins": 3, "edges": "9/4"}, "edges='9/4' must be rising numbers"),
        ({"bins": 3, "edges": "4/x"}, "edges='4/x' must be rising numbers"),
        ({"bins": 2, "edges": "nan"}, "edges='nan' must be rising numbers"),
        ({"bins": 3, "edges": "4/inf"}, "edges='4/inf' must be rising numbers"),
        ({"bins": 3, "edges": "-4/4"}, "edges='-4/4' must be rising numbers"),
        ({"bins": 3, "edges": "4"}, "edges='4' make 2 bins, not bins=3"),
    ],
)
@pytest.mark.parametrize("policy", [MultiBin, MultiBinContinuous])
def test_multi_bin_refuses_wrong_bins(
    policy: type[MultiBin | MultiBinContinuous], parameters: dict[str, object], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        policy(**parameters)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="turn=0"):
        MultiBinContinuous(turn=0)
