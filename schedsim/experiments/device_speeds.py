"""How fast one device is beside others of its kind, and calibrations of several or of one of them.

Chips of one kind differ by some per cent in what they do under load. So iterations of several
devices are fitted as if all had run on their mean, or how batches differ on one device would be
mixed up with how devices differ.
"""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from schedsim.costs.fitted_file import Part, Term
from schedsim.experiments.choosing import choose
from schedsim.experiments.fitting import fit, rounded, seconds_of
from schedsim.experiments.iterations import Iterations

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

ROUNDS = 3
"""Fits, each to times that the one before has put on one footing."""


def on_one_footing(iterations: Iterations, device: Ints, rate: Floats) -> tuple[Iterations, Floats]:
    """The iterations as the mean of the devices would have run them, and each device's time
    relative to that mean.

    `device` numbers, from 0, on which one each iteration ran; `rate` is that of `choose`. The
    geometric mean of relative times is 1. A single device is its own mean.
    """
    relative = np.ones(int(device.max()) + 1)
    if len(relative) == 1:
        return iterations, relative
    footed = iterations
    for _ in range(ROUNDS):
        choice = choose(footed, rate)
        parts = fit(footed, choice.straight, choice.factor)
        told = seconds_of(parts.device, iterations.terms, choice.factor)
        ran_on = [device == number for number in range(len(relative))]
        relative = np.array([relative_time(iterations.device[rows], told[rows]) for rows in ran_on])
        relative /= np.exp(np.log(relative).mean())
        footed = replace(iterations, device=iterations.device / relative[device])
    return footed, relative


def relative_time(measured: Floats, told: Floats) -> float:
    """How many times as long as `told` (s) iterations took on the device, in the median."""
    return float(np.median(measured / np.maximum(told, 1e-12)))


def scaled(part: Part, factor: float) -> Part:
    """A part of the step time that takes `factor` times as long."""
    return Part(
        base=rounded(part.base * factor),
        terms={
            name: Term(knots=term.knots, slopes=[rounded(slope * factor) for slope in term.slopes])
            for name, term in part.terms.items()
        },
    )
