"""The normal distribution over arrays, from the standard library: no SciPy in the base install."""

import math
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

_STANDARD = NormalDist()


def normal_cdf(z: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Φ(z), to within rounding in the lower tail too; about 0.2 µs a value."""
    scaled = (z.ravel() * -math.sqrt(0.5)).tolist()
    halves = np.fromiter(map(math.erfc, scaled), np.float64, z.size)
    return np.asarray(0.5 * halves).reshape(z.shape)


def normal_quantile(p: float) -> float:
    """Φ⁻¹(p) for 0 < p < 1."""
    return _STANDARD.inv_cdf(p)
