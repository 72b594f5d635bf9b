"""Least squares with coefficients that are not negative, and its robust form."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

HUBER_K = 3.0
"""Residuals beyond so many robust standard deviations pull no harder than one at it.

Far enough out that the ordinary scatter of measured times is averaged and not its median taken,
near enough that the operating system's pauses, ten times an iteration, hardly count.
"""

_MAX_ROUNDS = 100
_MAD_TO_DEVIATION = 1.4826


def nonnegative(matrix: Floats, target: Floats) -> Floats:
    """The x >= 0 with the least |matrix · x - target|; Lawson and Hanson's active set (1974).

    The columns must be independent. O(columns) small solves, each on the columns in use.
    """
    columns = matrix.shape[1]
    solution = np.zeros(columns)
    used = np.zeros(columns, dtype=np.bool_)
    tolerance = 1e-12 * max(1.0, float(np.abs(matrix.T @ target).max(initial=0.0)))
    barred = used.copy()  # columns that left at once: rounding made their gradient look positive
    while True:
        gradient = np.where(used | barred, -np.inf, matrix.T @ (target - matrix @ solution))
        if not len(gradient) or gradient.max() <= tolerance:
            return solution
        entering = int(gradient.argmax())
        used[entering] = True
        while True:
            trial = np.zeros(columns)
            trial[used] = np.linalg.lstsq(matrix[:, used], target, rcond=None)[0]
            leaving = used & (trial <= 0)
            if not leaving.any():
                break
            steps = solution[leaving] / (solution[leaving] - trial[leaving])
            solution = solution + steps.min() * (trial - solution)
            gone = leaving & (solution <= 1e-14 * np.abs(solution).max())
            gone[np.flatnonzero(leaving)[steps.argmin()]] = True
            used[gone] = False
            solution[gone] = 0.0
        barred = barred & False if used[entering] else barred | (np.arange(columns) == entering)
        solution = trial


def robust_nonnegative(matrix: Floats, target: Floats, scale: Floats | None = None) -> Floats:
    """The x >= 0 that fits best with errors counted in units of `scale`, outliers held down.

    Without a scale, errors count relative to what is fitted, not to the target: of times that
    scatter by a factor, those that came out short would else count more, and the fit be too short.
    Huber's M-estimator by reweighting, from the plain solution on; deterministic. A fit without
    error is left as it is.
    """
    relative = scale is None
    least = 1e-3 * float(np.median(target))
    unit = np.maximum(target, 1e3 * least) if scale is None else scale
    unit = np.maximum(unit, 1e-300)
    weight = np.ones(len(target))
    fitted = np.zeros(len(target))
    for _ in range(_MAX_ROUNDS):
        solution = _weighted(matrix, target, weight / unit)
        before, fitted = fitted, matrix @ solution
        if relative:
            unit = np.maximum(fitted, max(least, 1e-300))
        residual = np.abs(fitted - target) / unit
        deviation = _MAD_TO_DEVIATION * float(np.median(residual))
        if deviation < 1e-12 or (np.abs(fitted - before) <= 1e-7 * unit).all():
            break
        weight = np.sqrt(np.minimum(1.0, HUBER_K * deviation / np.maximum(residual, 1e-300)))
    return solution


def _weighted(matrix: Floats, target: Floats, weight: Floats) -> Floats:
    """`nonnegative` with rows that count `weight` times, on columns of length 1."""
    design = matrix * weight[:, None]
    lengths = np.linalg.norm(design, axis=0)
    # The same problem with as many rows as columns.
    orthogonal, triangle = np.linalg.qr(design / lengths)
    solution: Floats = nonnegative(triangle, orthogonal.T @ (target * weight)) / lengths
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
