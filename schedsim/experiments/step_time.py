"""What tells the time of a simulation where the settings leave it open, and its noise."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from schedsim.config import RunSettings
from schedsim.costs import FittedCost, RecordedTimes, StepCost, load_fitted
from schedsim.costs.noise import StepNoise
from schedsim.costs.packaged import KERNELS, calibration_name
from schedsim.errors import ConfigError
from schedsim.memory import make_manager

ROOFLINE = "roofline"


class ChosenStepTime(NamedTuple):
    """The spec of a step-time model, and what is to be said of the choice."""

    spec: str
    notes: tuple[str, ...]


def choose_step_time(settings: RunSettings, block_size: int) -> ChosenStepTime:
    """The settings' step time, or else the packaged calibration of the model on the GPU with the
    kernels and blocks of the memory manager, or else the roofline.

    The settings name a memory manager, whose blocks have `block_size` tokens.
    """
    if settings.step_time is not None:
        return ChosenStepTime(settings.step_time, ())
    assert settings.memory is not None, "the policy's memory manager is not filled in"
    kernels = "contiguous" if make_manager(settings.memory).in_one_piece else "paged"
    name = calibration_name(settings.gpu, settings.model, kernels)
    if name is None or settings.tensor_parallel > 1:
        return ChosenStepTime(ROOFLINE, ())
    cost = load_fitted(name)
    if cost.block_size not in (None, block_size):
        return ChosenStepTime(
            ROOFLINE,
            (
                f"the packaged calibration {name} is one of KV blocks of {cost.block_size} tokens, "
                f"here they have {block_size}: step times are the roofline's",
            ),
        )
    device = cost.file.provenance.get("device")
    return ChosenStepTime(
        f"fitted:{name}",
        (
            f"step times: the packaged calibration {name}, measured on {device}; "
            "--step-time roofline takes peak figures instead",
        ),
    )


def has_calibration(gpu: str, model: str) -> bool:
    """Whether a calibration of the model on the GPU comes with the package, of any kernels."""
    return any(calibration_name(gpu, model, kernels) is not None for kernels in KERNELS)


def make_noise(settings: RunSettings, step_time: StepCost | RecordedTimes) -> StepNoise | None:
    """The scatter of a simulation's step times, drawn from its seed; None: they have none.

    Raises:
        ConfigError: the settings ask for it, and what tells the time knows of none.
    """
    if not settings.step_noise:
        return None
    return StepNoise(
        scatter_of(step_time, "--step-noise"), np.random.default_rng(noise_stream(settings))
    )


def scatter_of(step_time: StepCost | RecordedTimes, option: str) -> Mapping[str, Sequence[float]]:
    """How the iterations of a calibration scattered, as `StepNoise` takes it.

    Raises:
        ConfigError: `step_time` is none, or knows of no scatter; the `option` that asks for it is
            named.
    """
    if not isinstance(step_time, FittedCost) or not step_time.file.noise:
        name = step_time.describe()["name"]
        raise ConfigError(
            f"{option} draws from the measured iterations of a calibration that repeated sizes of "
            f"batches, and {name} holds none; give the fitted:FILE of a designed calibration "
            "(schedsim calibrate --model) or leave it out"
        )
    return step_time.file.noise


def noise_stream(settings: RunSettings) -> np.random.SeedSequence:
    """What noise is drawn from: a stream of its own, beside those of arrivals and predictor."""
    return np.random.SeedSequence(settings.seed).spawn(2)[1]
