"""Iterations of devices that differ in speed are fitted as if their mean had run them."""

import dataclasses

import numpy as np
import pytest

from schedsim.experiments.device_speeds import on_one_footing, scaled
from schedsim.experiments.fitting import STRAIGHT, fit, seconds_of
from schedsim.experiments.iterations import Iterations, joined
from tests.experiments.iterations import TRUE, made_up

pytest.importorskip("scipy")

SLOWER = 1.03
MEAN = SLOWER**0.5


def on_two_devices(noise: float = 0.0) -> tuple[Iterations, np.ndarray]:
    """Other batches on each, more of them on the first; the second is slower."""
    first, second = made_up(400, 1, noise), made_up(250, 2, noise)
    second = dataclasses.replace(second, device=SLOWER * second.device)
    return joined([first, second]), np.repeat([0, 1], [400, 250])


@pytest.mark.parametrize("noise", [0.0, 0.02])
def test_two_devices_are_told_apart_and_their_mean_is_fitted(noise: float) -> None:
    iterations, device = on_two_devices(noise)
    footed, relative = on_one_footing(iterations, device, np.zeros(len(iterations)))
    # A median of n errors of this size is off by 1.25 / sqrt(n) of it.
    assert relative == pytest.approx([1 / MEAN, MEAN], rel=2e-4 + noise / 8)
    assert relative.prod() == pytest.approx(1.0, rel=1e-12)
    np.testing.assert_allclose(footed.device, iterations.device / relative[device], rtol=1e-12)
    unseen = made_up(300, 3)
    told = seconds_of(fit(footed, max(STRAIGHT)).device, unseen.terms)
    off = np.median(told / unseen.device)
    assert off == pytest.approx(MEAN, rel=5e-4 + noise / 8)


def test_only_the_time_of_the_device_changes() -> None:
    iterations, device = on_two_devices()
    footed, _ = on_one_footing(iterations, device, np.zeros(len(iterations)))
    for field in dataclasses.fields(Iterations):
        if field.name != "device":
            assert getattr(footed, field.name) is getattr(iterations, field.name)


def test_a_single_device_is_its_own_mean_to_the_bit() -> None:
    alone = made_up(200, 4, noise=0.1)
    footed, relative = on_one_footing(alone, np.zeros(200, dtype=np.int64), np.zeros(200))
    assert footed is alone
    assert relative.tolist() == [1.0]


def test_a_scaled_part_takes_so_many_times_as_long() -> None:
    terms = made_up(100, 5).terms
    longer = seconds_of(scaled(TRUE.device, SLOWER), terms)
    np.testing.assert_allclose(longer, SLOWER * seconds_of(TRUE.device, terms), rtol=1e-8)
