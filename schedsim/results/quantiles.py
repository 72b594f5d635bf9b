"""Exact statistics of samples, plain or with whole-number weights."""

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

QUANTILES = (("p50", 0.5, 2), ("p90", 0.9, 10), ("p95", 0.95, 20), ("p99", 0.99, 100))
"""Name, q, and 1/(1 - q): a quantile of fewer samples than that would be an extrapolation."""


def describe(values: Floats, weights: Ints | None = None) -> dict[str, float | int | None]:
    """Count, mean, quantiles and maximum of `values`, each taken `weights` times; NaN is left out.

    A statistic is None where there are too few samples for it.
    """
    if weights is None:
        weights = np.ones(len(values), dtype=np.int64)
    use = (weights > 0) & ~np.isnan(values)
    values, weights = values[use], weights[use]
    order = np.argsort(values, kind="stable")
    values, weights = values[order], weights[order]
    count = int(weights.sum())
    statistics: dict[str, float | int | None] = {
        "count": count,
        "mean": float((values * weights).sum() / count) if count else None,
    }
    ends = np.cumsum(weights)
    for name, q, needed in QUANTILES:
        statistics[name] = _sorted_quantile(values, ends, q) if count >= needed else None
    statistics["max"] = float(values[-1]) if count else None
    return statistics


def _sorted_quantile(values: Floats, ends: Ints, q: float) -> float:
    """The q-quantile of sorted `values`; value i stands at the places `ends[i - 1] .. ends[i]`."""
    last = int(ends[-1]) - 1
    place = last * q
    below = int(place)
    fraction = place - below
    low = float(values[np.searchsorted(ends, below, side="right")])
    high = float(values[np.searchsorted(ends, min(below + 1, last), side="right")])
    # numpy interpolates from the nearer side, which keeps the result monotone in q
    if fraction >= 0.5:
        return high - (high - low) * (1 - fraction)
    return low + (high - low) * fraction
