"""How repeats of one size scatter: the device's own noise, without what a fit misses."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schedsim.experiments.choosing import LEAST_ITERATIONS
from schedsim.experiments.iterations import KINDS, Iterations
from schedsim.experiments.least_squares import HUBER_K, MAD_TO_DEVIATION, REPEATED, medians
from schedsim.experiments.regions import sizes_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NOISE_RANKS = 101
"""Quantiles of the scatter that the file keeps, at ranks 0, 1 %, …, 100 %; but see
`noise_quantiles` for the two ends."""


class Repeats(NamedTuple):
    """Measured / fitted of iterations that repeat a size, the sizes' numbers, the kinds' index."""

    ratio: Floats
    size: Ints
    kind: Ints


def noise_of(fitted: Floats, iterations: Iterations) -> dict[str, list[float]]:
    """Quantiles of `scatter` by kind, with a mean of 1 in straight lines between them.

    Of those kinds of which `LEAST_ITERATIONS` repeat a size. `fitted` are the seconds of each.
    """
    ratio, size, kind = _repeats(fitted, iterations)
    found = {}
    for place, name in enumerate(KINDS):
        rows = kind == place
        if np.count_nonzero(rows) >= LEAST_ITERATIONS:
            values = noise_quantiles(scatter(ratio[rows], size[rows]))
            mean = float((values[1:] + values[:-1]).mean()) / 2
            found[name] = [float(f"{value:.6g}") for value in values / mean]
    return found


def kinds_without_noise(noise: Mapping[str, Sequence[float]], iterations: Iterations) -> list[str]:
    """A sentence about the kinds that have iterations and no noise; none if there are none."""
    names = [KINDS[place] for place in np.unique(iterations.kind) if KINDS[place] not in noise]
    if not names:
        return []
    return [
        f"no noise for --step-noise to draw of these batches: {', '.join(names)}; fewer than "
        f"{LEAST_ITERATIONS} of their iterations are of a size that was measured {REPEATED} times"
    ]


def scatter(ratio: Floats, size: Ints) -> Floats:
    """Each ratio relative to the mean of its size, as if that mean were known exactly.

    The mean is of those repeats that are no outliers (`HUBER_K` robust deviations off the median of
    their size): a pause would else make its neighbours look fast. The n that it is of lie closer to
    it than to the true one, for which the power sqrt(n / (n - 1)) makes up: it widens a deviation
    by as much, where that is small, and no factor falls below 0. Outliers are left as they are.
    Every size must have been measured `REPEATED` times and have a positive median.
    """
    middle = medians(ratio, size)
    off = np.abs(ratio / middle - 1)
    others = off[off > 0]  # without the medians themselves, a third of three repeats
    deviation = MAD_TO_DEVIATION * float(np.median(others)) if len(others) else 0.0
    near = off <= HUBER_K * deviation
    _, place = np.unique(size, return_inverse=True)
    count = np.bincount(place, weights=near)  # 1 at least: a median of them is one of them
    mean = np.bincount(place, weights=near * ratio) / count
    power = np.sqrt(count / np.maximum(count - 1, 1))
    relative = ratio / mean[place]
    return np.where(near, relative ** power[place], relative)


def noise_quantiles(ratio: Floats) -> Floats:
    """The quantiles of `ratio` at `NOISE_RANKS` even ranks, to be drawn from in straight lines.

    The first and the last are no extremes: a straight line to one pause in ten thousand iterations
    would make a pause of half its length of one in two hundred. They are where the mean of the line
    is that of the values in that share, and not beyond the extreme.
    """
    values = np.quantile(ratio, np.linspace(0, 1, NOISE_RANKS))
    ordered = np.sort(ratio)
    share = -(-len(ordered) // (NOISE_RANKS - 1))
    low, high = float(ordered[:share].mean()), float(ordered[-share:].mean())
    values[0] = np.clip(2 * low - values[1], values[0], values[1])
    values[-1] = np.clip(2 * high - values[-2], values[-2], values[-1])
    return values


def _repeats(fitted: Floats, iterations: Iterations) -> Repeats:
    """Those of a size that was measured `REPEATED` times.

    Iterations with a gap and without, with host time and without, are sizes of their own: the fit
    may miss each part of the time by another share.
    """
    ratio = iterations.period / np.maximum(fitted, 1e-12)
    parts = (np.isnan(iterations.gap), iterations.hidden)
    _, size = np.unique(
        np.column_stack([sizes_of(iterations), *parts]), axis=0, return_inverse=True
    )
    size = size.reshape(-1)
    rows = medians(ratio, size) > 0  # 0 also where the repeats are too few
    return Repeats(ratio[rows], size[rows], iterations.kind[rows])
