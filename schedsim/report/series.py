"""Runs as the few numbers that a figure shows, however long they were."""

from typing import Any

import numpy as np
import numpy.typing as npt

from schedsim.results.quantiles import QUANTILES, Floats

SHARES = np.unique([*np.linspace(0.0, 1.0, 201), *(q for _, q, _ in QUANTILES), 0.999])
"""The shares at which a distribution is told; those of the summary are among them."""

MOST_BINS = 240
MOST_TENANTS = 12

Points = list[dict[str, Any]]


def cdf_points(run: str, values: Floats) -> Points:
    """The distribution of `values` without its NaN, at each of `SHARES`; interpolated linearly."""
    values = values[~np.isnan(values)]
    if not len(values):
        return []
    quantiles = np.quantile(values, SHARES)
    return [
        {"run": run, "value": float(value), "share": float(share)}
        for value, share in zip(quantiles, SHARES, strict=True)
    ]


def time_points(run: str, start: Floats, end: Floats, columns: dict[str, Floats]) -> Points:
    """Means of columns of iterations over equal stretches of time, weighted by duration.

    An iteration counts where its middle is; a stretch without any has no point.
    """
    if not len(end):
        return []
    bins = min(MOST_BINS, len(end))
    edges = np.linspace(start[0], end[-1], bins + 1)
    place = np.clip(np.searchsorted(edges, (start + end) / 2, side="right") - 1, 0, bins - 1)
    seconds = end - start
    weight = np.bincount(place, seconds, bins)
    there = np.flatnonzero(weight > 0)
    means = {
        name: np.bincount(place, values * seconds, bins)[there] / weight[there]
        for name, values in columns.items()
    }
    middles = (edges[:-1] + edges[1:])[there] / 2
    return [
        {"run": run, "time": float(middles[i])} | {n: float(v[i]) for n, v in means.items()}
        for i in range(len(there))
    ]


def memory_points(run: str, memory: dict[str, Any]) -> Points:
    """What the KV cache was used for, in shares of it, out of a summary; [] where nothing ran."""
    if memory["used"] is None:
        return []
    causes = {
        "tokens": memory["used"],
        "kept for later": memory["reserved_for_later"],
        "wasted in blocks": memory["internal_waste"],
        "free, in pieces": memory["external_waste"],
        "free": 1.0 - memory["reserved"] - memory["external_waste"],
    }
    return [
        {"run": run, "cause": cause, "share": max(share, 0.0), "order": order}
        for order, (cause, share) in enumerate(causes.items())
    ]


def tenant_points(run: str, tenants: npt.NDArray[Any], ttft: Floats, output: Floats) -> Points:
    """The mean TTFT and the output tokens of the tenants with the most requests; [] without any."""
    known = np.array([tenant is not None for tenant in tenants], dtype=np.bool_)
    if not known.any():
        return []
    names, place, counts = np.unique(
        tenants[known].astype(str), return_inverse=True, return_counts=True
    )
    has_ttft = ~np.isnan(ttft[known])
    total = np.bincount(place[has_ttft], ttft[known][has_ttft], len(names))
    served = np.bincount(place[has_ttft], minlength=len(names))
    tokens = np.bincount(place[has_ttft], output[known][has_ttft], len(names))
    most = sorted(np.argsort(-counts, kind="stable")[:MOST_TENANTS].tolist())
    return [
        {
            "run": run,
            "tenant": str(names[i]),
            "ttft": float(total[i] / served[i]) if served[i] else None,
            "tokens": float(tokens[i]),
        }
        for i in most
    ]


def quantile_pairs(metric: str, measured: Floats, simulated: Floats) -> Points:
    """The distributions of a metric in two runs against each other, at each percentile."""
    measured, simulated = measured[~np.isnan(measured)], simulated[~np.isnan(simulated)]
    if not len(measured) or not len(simulated):
        return []
    shares = np.linspace(0.01, 0.99, 99)
    return [
        {"metric": metric, "share": float(share), "measured": float(m), "simulated": float(s)}
        for share, m, s in zip(
            shares, np.quantile(measured, shares), np.quantile(simulated, shares), strict=True
        )
    ]
