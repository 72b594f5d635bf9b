"""Noise of step times: the measured distribution, the same draw however many are asked for."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schedsim.costs.noise import StepNoise

QUANTILES = {"decode": [0.5, 0.9, 1.0, 1.1, 4.0], "mixed": [1.0, 2.0]}


def noise(seed: int = 0) -> StepNoise:
    return StepNoise(QUANTILES, np.random.default_rng(seed))


@given(st.lists(st.integers(1, 60), min_size=1, max_size=6), st.integers(0, 99))
def test_an_iteration_has_its_factor_however_many_are_asked_for(
    sizes: list[int], seed: int
) -> None:
    """Also where more are asked for than are used, and asked for again."""
    grouped, alone = noise(seed), noise(seed)
    first = 4090  # where more are drawn
    for size in sizes:
        factors = grouped.factors("decode", first, size)
        grouped.factors("decode", first, 2 * size)
        assert factors.tolist() == [alone.factor("decode", first + i) for i in range(size)]
        first += size


def test_the_factors_have_the_quantiles() -> None:
    drawn = noise().factors("decode", 0, 200_000)
    found = np.quantile(drawn, np.linspace(0, 1, 5))
    np.testing.assert_allclose(found[1:4], QUANTILES["decode"][1:4], rtol=0.01)
    assert drawn.min() >= 0.5
    assert drawn.max() <= 4.0
    mixed = noise().factors("mixed", 0, 1000)
    assert 1.0 <= mixed.min() < 1.02
    assert 1.98 < mixed.max() <= 2.0


def test_another_seed_is_another_noise_and_an_unknown_kind_has_none() -> None:
    assert noise(1).factor("decode", 7) != noise(2).factor("decode", 7)
    assert noise().factors("copies", 3, 4).tolist() == [1.0] * 4
