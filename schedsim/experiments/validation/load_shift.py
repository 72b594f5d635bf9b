"""The horizontal error: how much more load a simulation needs to be as slow as what was measured.

Near saturation a curve of latency over load is steep, and a small error of the load that an engine
bears is a large one of the latency. This is that error along the other axis.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from schedsim.results.quantiles import Floats

FACTORS = (0.8, 0.9, 0.95, 0.975, 1.0, 1.025, 1.05, 1.1, 1.25)
"""The loads at which a curve is simulated, in parts of the measured run's."""

_ROUNDING = 1e-9

_FINE = np.unique(np.round([*np.arange(FACTORS[0], FACTORS[-1], 0.001), FACTORS[-1]], 6))


class Curve(NamedTuple):
    """A latency at the load of a measured run, and the simulated one at each of `FACTORS`."""

    measured: float
    simulated: Sequence[float]


def load_shift(curves: Sequence[Curve]) -> float | None:
    """The factor less 1 by which the load of all curves is to be multiplied for the simulated
    latencies to be the measured ones: above 0 where the simulated engine is the faster one.

    Least squares of the latencies' logarithms, which are taken for straight between the factors;
    to 0.001. None where it is at the end of the factors or beyond, and where no curve has its
    measured latency at any of them, as one that does not depend on the load.
    """
    assert curves, "a shift is of a curve"
    off = [_between(curve.simulated) - np.log(curve.measured) for curve in curves]
    if not any(each.min() <= _ROUNDING and each.max() >= -_ROUNDING for each in off):
        return None
    squares = np.sum(np.square(off), axis=0)
    best = np.flatnonzero(squares <= squares.min() + 1e-12)
    shifts = _FINE[best] - 1.0
    nearest = int(np.abs(shifts).argmin())
    if best[nearest] in (0, len(_FINE) - 1):
        return None
    return float(np.round(shifts[nearest], 6))


def _between(simulated: Sequence[float]) -> Floats:
    """The logarithm of a latency at every fine factor."""
    between: Floats = np.interp(np.log(_FINE), np.log(FACTORS), np.log(simulated))
    return between
