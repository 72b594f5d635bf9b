"""Static batches against closed forms, and what iterations gain over them on the same seats."""

import numpy as np
import numpy.typing as npt
import pytest

from schedsim.policies import VLLM, Orca, Policy, Static
from schedsim.results import Result
from tests.theory.queueing import constant_step, run_queue

STEP = constant_step(1.0)


def batch_times(result: Result) -> npt.NDArray[np.float64]:
    """Seconds from the admission of each batch to the end of its last member."""
    batches = result.requests.groupby("admitted")["finished"]
    times: npt.NDArray[np.float64] = (batches.max() - batches.max().index).to_numpy()
    return times


@pytest.mark.parametrize("size", [2, 8, 16])
def test_a_static_batch_takes_as_long_as_the_longest_of_uniform_lengths(size: int) -> None:
    low, span, count = 20, 160, 300
    rng = np.random.default_rng(size)
    lengths = np.floor(rng.uniform(low, low + span, size * count)).astype(int)
    times = batch_times(run_queue(np.zeros(size * count), lengths, STEP, size, Static(size)))
    expected = low - 0.5 + span * size / (size + 1)  # floor: half a token
    deviation = span * (size / (size + 2)) ** 0.5 / (size + 1)
    assert len(times) == count
    assert times.mean() == pytest.approx(expected, abs=4 * deviation / count**0.5)


@pytest.mark.parametrize("policy", [VLLM(), Orca("limit")], ids=lambda policy: policy.name)
def test_exponential_lengths_cost_static_batches_a_harmonic_number(policy: Policy) -> None:
    """All seats of B are taken until the longest ends, H_B times the mean: 3.4 times for 16."""
    size, count = 16, 250
    rng = np.random.default_rng(4)
    lengths = np.ceil(rng.exponential(100.0, size * count)).astype(int)
    result = run_queue(np.zeros(size * count), lengths, STEP, size, Static(size))
    harmonic = sum(1 / n for n in range(1, size + 1))
    deviation = 100.0 * sum(1 / n**2 for n in range(1, size + 1)) ** 0.5
    expected = 0.5 + 100.0 * harmonic  # ceil: half a token
    assert batch_times(result).mean() == pytest.approx(expected, abs=4 * deviation / count**0.5)
    continuous = run_queue(np.zeros(size * count), lengths, STEP, size, policy)
    gain = result.requests["finished"].max() / continuous.requests["finished"].max()
    # Without waste the seats are taken by `lengths` alone, but for the last batch.
    assert gain == pytest.approx(harmonic, rel=0.06)
