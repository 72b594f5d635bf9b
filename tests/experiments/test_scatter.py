"""The noise of a calibration is what repeats of a size differ by, and no misfit."""

import dataclasses

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schedsim.costs.features import KINDS
from schedsim.costs.noise import StepNoise
from schedsim.experiments.choosing import LEAST_ITERATIONS
from schedsim.experiments.fitting import fit, fitted_periods
from schedsim.experiments.iterations import Iterations
from schedsim.experiments.scatter import (
    kinds_without_noise,
    noise_of,
    noise_quantiles,
    scatter,
)
from tests.experiments.iterations import Floats, made_up


def repeated(
    repeats: int, noise: float, misfit: float = 0.0, sizes: int = 300, seed: int = 0
) -> Iterations:
    """Sizes measured `repeats` times that scatter by `noise`, each off by its own part of `misfit`
    from what any fit can follow."""
    once = made_up(sizes, seed)
    names = [field.name for field in dataclasses.fields(once)]
    columns = {name: np.repeat(getattr(once, name), repeats, axis=0) for name in names}
    rng = np.random.default_rng(seed + 1)
    own = np.repeat(1 + misfit * rng.uniform(-1, 1, sizes), repeats)
    factor = own * np.exp(noise * rng.standard_normal(repeats * sizes))
    for name in ("host", "device", "gap"):
        columns[name] = columns[name] * factor
    return Iterations(**columns)


def deviation(quantiles: list[float]) -> float:
    """Half of what lies between the ranks of a normal law's standard deviations."""
    values = np.interp([0.1587, 0.8413], np.linspace(0, 1, len(quantiles)), quantiles)
    return float(values[1] - values[0]) / 2


@pytest.mark.parametrize("repeats", [3, 4, 10])
@pytest.mark.parametrize("noise", [0.005, 0.05])
def test_what_the_fit_misses_is_no_noise(repeats: int, noise: float) -> None:
    """Sizes off by up to 30 %, each always by the same; and few repeats scatter no less."""
    pytest.importorskip("scipy")
    measured = repeated(repeats, noise, misfit=0.3)
    fitted = fitted_periods(fit(measured), measured)
    assert np.std(measured.period / fitted) > 0.1, "the fit does miss something"
    found = noise_of(fitted, measured)
    assert set(found) == {"prefill", "decode", "mixed"} - without_enough(measured)
    for kind in ("decode", "mixed"):
        assert deviation(found[kind]) == pytest.approx(noise, rel=0.15), kind


def without_enough(measured: Iterations) -> set[str]:
    return {name for i, name in enumerate(KINDS) if (measured.kind == i).sum() < LEAST_ITERATIONS}


def test_an_iteration_without_a_gap_is_no_repeat_of_one_with_it() -> None:
    """A gap that the fit takes for half as long is one of its errors, wherever it was measured."""
    measured = repeated(8, 0.01)
    gap = np.full(len(measured), 0.5) * np.median(measured.device)
    gap[::2] = np.nan
    measured = dataclasses.replace(measured, gap=gap)
    fitted = measured.added(measured.host, np.array(repeated(8, 0.0).device), gap / 2)
    assert deviation(noise_of(fitted, measured)["decode"]) < 0.02


def test_a_pause_does_not_make_its_neighbours_fast() -> None:
    rng = np.random.default_rng(0)
    size = np.repeat(np.arange(1000), 4)
    ratio = 1 + 0.01 * rng.standard_normal(4000)
    ratio[rng.permutation(4000)[:40]] += 9
    factors = scatter(ratio, size)
    assert factors.min() > 0.94
    assert (factors > 5).sum() == 40
    assert factors.max() == pytest.approx(10, rel=0.05)


def test_kinds_that_were_hardly_repeated_have_no_noise_and_it_is_said() -> None:
    once = made_up(600, 3, noise=0.1)
    assert noise_of(once.period, once) == {}
    (told,) = kinds_without_noise({}, once)
    assert "of these batches: prefill, decode, mixed; fewer than 20" in told
    often = repeated(3, 0.1)
    (told,) = kinds_without_noise({"decode": [1.0], "mixed": [1.0]}, often)
    assert ": prefill;" in told
    assert kinds_without_noise({kind: [1.0] for kind in KINDS}, often) == []


@example(sigma=2.0, pauses=0.3, repeats=3, seed=0)
@given(
    sigma=st.floats(0, 2),
    pauses=st.floats(0, 0.3),
    repeats=st.integers(3, 9),
    seed=st.integers(0, 2**32 - 1),
)
def test_drawn_factors_have_a_mean_of_1(
    sigma: float, pauses: float, repeats: int, seed: int
) -> None:
    """Whatever was measured, and none is negative."""
    measured = repeated(repeats, sigma, sizes=100, seed=seed)
    rng = np.random.default_rng(seed)
    late = np.where(rng.random(len(measured)) < pauses, 1.0, 0.0)
    measured = dataclasses.replace(measured, device=measured.device + late)
    found = noise_of(np.array(repeated(repeats, 0.0, sizes=100, seed=seed).period), measured)
    for kind, quantiles in found.items():
        assert min(quantiles) >= 0
        assert (np.diff(quantiles) >= 0).all()
        # The ranks of StepNoise, each as often as any other.
        line = StepNoise({kind: quantiles}, Evenly())  # type: ignore[arg-type]
        assert line.factors(kind, 0, 100_000).mean() == pytest.approx(1, abs=1e-4)


class Evenly:
    """In the place of a random generator."""

    def random(self, count: int) -> Floats:
        return np.asarray((np.arange(count) + 0.5) / count)


@pytest.mark.parametrize("pauses", [0, 1, 20])
def test_noise_has_the_mean_of_what_was_measured(pauses: int) -> None:
    """Also where a few iterations in thousands were ten times as long as the others."""
    rng = np.random.default_rng(pauses)
    ratio = 1 + 0.01 * rng.standard_normal(4000)
    ratio[rng.permutation(4000)[:pauses]] *= 10
    quantiles = noise_quantiles(ratio)
    assert (np.diff(quantiles) >= 0).all()
    assert ratio.min() <= quantiles[0]
    assert quantiles[-1] <= ratio.max()
    drawn = StepNoise({"decode": quantiles.tolist()}, rng).factors("decode", 0, 400_000)
    assert drawn.mean() == pytest.approx(ratio.mean(), rel=2e-3)
    assert np.quantile(drawn, [0.05, 0.5, 0.95]) == pytest.approx(
        np.quantile(ratio, [0.05, 0.5, 0.95]), rel=1e-3
    )


def test_noise_of_few_iterations_keeps_their_extremes() -> None:
    quantiles = noise_quantiles(np.linspace(0.5, 3.0, 20))
    assert (quantiles[0], quantiles[-1]) == (0.5, 3.0)
