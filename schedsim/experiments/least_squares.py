"""Robust least squares with coefficients that are not negative."""

from importlib.util import find_spec

import numpy as np
import numpy.typing as npt

from schedsim.errors import ConfigError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

HUBER_K = 3.0
"""Residuals beyond so many robust standard deviations pull no harder than one at it.

Far enough out that the ordinary scatter of measured times is averaged and not its median taken,
near enough that the operating system's pauses, ten times an iteration, hardly count.
"""

REPEATED = 3
"""Measurements of one thing from which on an outlier is one among them, not one of the fit."""

MAD_TO_DEVIATION = 1.4826
"""By how much the standard deviation of a normal law exceeds its median absolute one."""

_MAX_ROUNDS = 100
_SETTLED = 1e-5


def require_scipy() -> None:
    """Stop, before anything is measured, where nothing can be fitted.

    Raises:
        ConfigError: scipy is not installed; says how to get it.
    """
    if find_spec("scipy") is None:
        raise ConfigError("a fit needs scipy, which this Python has not: pip install scipy")


def nonnegative(matrix: Floats, target: Floats) -> Floats:
    """The x >= 0 with the least |matrix · x - target|, by scipy (Lawson and Hanson, 1974)."""
    from scipy.optimize import nnls

    solution: Floats = nnls(matrix, target, maxiter=1000 + 100 * matrix.shape[1])[0]
    return solution


def robust_nonnegative(
    matrix: Floats,
    target: Floats,
    scale: Floats | None = None,
    prior: Floats | None = None,
    price: Floats | None = None,
    repeats: Ints | None = None,
) -> Floats:
    """The x >= 0 that fits best with errors counted in units of `scale`, outliers held down.

    Without a scale, errors count relative to what is fitted, not to the target: of times that
    scatter by a factor, those that came out short would else count more, and the fit be too short.
    `prior`, in units of the scale, has rows whose product with x is to be small, too; `price` · x
    is added to half of the sum of squares. `repeats` numbers what each row measures: where a thing
    was measured `REPEATED` times, an outlier is what differs from most of these, so that a rare
    thing which the fit does not reach still counts. Huber's M-estimator by reweighting, from the
    plain solution on; deterministic. A fit without error is left as it is.
    """
    relative = scale is None
    least = 1e-3 * float(np.median(target))
    unit = np.maximum(target, 1e3 * least) if scale is None else scale
    unit = np.maximum(unit, 1e-300)
    weight = np.ones(len(target))
    fitted = np.zeros(len(target))
    for _ in range(_MAX_ROUNDS):
        solution = _weighted(matrix, target, weight / unit, prior, price)
        before, fitted = fitted, matrix @ solution
        if relative:
            unit = np.maximum(fitted, max(least, 1e-300))
        residual = (target - fitted) / unit
        if repeats is not None:
            residual = residual - medians(residual, repeats)
        residual = np.abs(residual)
        deviation = MAD_TO_DEVIATION * float(np.median(residual))
        if deviation < 1e-12 or (np.abs(fitted - before) <= _SETTLED * unit).all():
            break
        weight = np.sqrt(np.minimum(1.0, HUBER_K * deviation / np.maximum(residual, 1e-300)))
    return solution


def medians(values: Floats, repeats: Ints) -> Floats:
    """For each value the lower median of those that measure the same; 0 where they are too few."""
    order = np.lexsort((values, repeats))
    _, first, place, count = np.unique(
        repeats[order], return_index=True, return_inverse=True, return_counts=True
    )
    middle = values[order][first + (count - 1) // 2]
    medians = np.empty(len(values))
    medians[order] = np.where(count >= REPEATED, middle, 0.0)[place]
    return medians


def _weighted(
    matrix: Floats, target: Floats, weight: Floats, prior: Floats | None, price: Floats | None
) -> Floats:
    """`nonnegative` with rows that count `weight` times, on columns of length 1."""
    design, wanted = matrix * weight[:, None], target * weight
    if prior is not None:
        design = np.vstack([design, prior])
        wanted = np.append(wanted, np.zeros(len(prior)))
    lengths = np.linalg.norm(design, axis=0)
    lengths[lengths == 0] = 1.0
    # The same problem with as many rows as columns; what is wanted is turned along.
    turned = np.asarray(np.linalg.qr(np.column_stack([design / lengths, wanted]), mode="r"))
    width = design.shape[1]
    triangle, aim = turned[:width, :width], turned[:width, width]
    if price is not None:
        aim = aim - np.linalg.solve(triangle.T, price / lengths)
    solution: Floats = nonnegative(triangle, aim) / lengths
    return solution


def independent(matrix: Floats, least: float) -> list[int]:
    """The columns, from the first on, that those kept before them do not make up.

    A column is kept if what the others leave of it is more than `least` of its length.
    """
    kept: list[int] = []
    basis = np.zeros((len(matrix), 0))
    for index in range(matrix.shape[1]):
        column = matrix[:, index]
        length = float(np.linalg.norm(column))
        if length == 0:
            continue
        rest = column / length
        for _ in range(2):  # twice is enough for rounding
            rest = rest - basis @ (basis.T @ rest)
        left = float(np.linalg.norm(rest))
        if left > least:
            kept.append(index)
            basis = np.column_stack([basis, rest / left])
    return kept


def inflation(matrix: Floats) -> Floats:
    """For each column, how much the others inflate the variance of its coefficient; 1: not at all.

    The columns must be independent.
    """
    unit = matrix / np.linalg.norm(matrix, axis=0)
    triangle = np.linalg.qr(unit, mode="r")
    inverse = np.linalg.inv(triangle)
    return np.asarray((inverse**2).sum(axis=1))
