"""Means with intervals from samples that depend on each other, and the correction for many."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from schedsim.experiments.student_t import critical_value, two_sided_p
from schedsim.results.quantiles import Floats

MOST_BATCHES, FEWEST_BATCHES = 10, 3
"""Neighbouring requests of a queue are alike, and only stretches that are long against that are
independent of each other: better few than short. Ten cost 8 % of the width of intervals against
twenty (Schmeiser 1982), and miss the truth less often."""

WORTH_OF_A_BATCH = 8
"""A batch should hold as much as this many independent samples."""

Statistic = Callable[[Floats], float]


class Estimate(NamedTuple):
    """A figure, the standard error of it, and on how many degrees of freedom that stands."""

    value: float
    error: float
    freedom: float

    @property
    def p(self) -> float:
        """How likely a figure as far from 0 is if the true one is 0."""
        if self.error == 0.0:
            return 1.0 if self.value == 0.0 else 0.0
        return two_sided_p(self.value / self.error, self.freedom)

    def half_width(self, level: float) -> float:
        """Half the interval that misses the true figure with chance `level`."""
        return critical_value(level, self.freedom) * self.error


class Values(NamedTuple):
    """A figure of all samples, and the same figure of each of some parts of them, which are
    independent of each other."""

    whole: float
    parts: Floats

    @classmethod
    def of_mean(cls, parts: Floats) -> "Values":
        """A figure that is the mean of its parts."""
        return cls(float(parts.mean()), parts)

    @property
    def estimate(self) -> Estimate:
        """The figure with its error, by how far the parts are from it; at least two of these."""
        size = len(self.parts)
        squares = float(((self.parts - self.whole) ** 2).sum())
        return Estimate(self.whole, math.sqrt(squares / (size * (size - 1))), size - 1)

    @property
    def without_drift(self) -> Estimate:
        """The figure with its error, by how far parts in the order of time, at least three, are
        from a line through it."""
        size = len(self.parts)
        squares = float(((without_line(self.parts) - self.whole) ** 2).sum())
        return Estimate(self.whole, math.sqrt(squares / (size * (size - 2))), size - 2)


def without_line(values: Floats) -> Floats:
    """The values less the slope of their least-squares line, which leaves their mean."""
    place = np.arange(len(values)) - (len(values) - 1) / 2
    slope = float((place * values).sum() / (place * place).sum())
    left: Floats = values - slope * place
    return left


def difference_of(a: Values, b: Values, paired: bool, drifts: bool = False) -> Estimate:
    """`b` less `a`: part by part, or of parts that have nothing to do with each other.

    Unpaired after Welch, who lets the variances differ. `drifts` says that the parts stand in the
    order of time: a difference that grows along a line, as it does while queues grow, is then no
    error, for both have the same load to its end.
    """
    if paired:
        pairs = Values(b.whole - a.whole, b.parts - a.parts)
        return pairs.without_drift if drifts else pairs.estimate
    variance_a, variance_b = a.estimate.error**2, b.estimate.error**2
    total = variance_a + variance_b
    freedom = float(len(a.parts) + len(b.parts) - 2)
    if total > 0:
        parts = variance_a**2 / (len(a.parts) - 1) + variance_b**2 / (len(b.parts) - 1)
        freedom = total**2 / parts
    return Estimate(b.whole - a.whole, math.sqrt(total), freedom)


def in_batches(samples: Floats, statistic: Statistic, batches: int) -> Values:
    """A statistic of `samples`, which stand in the order of time, and of equal stretches of them.

    Their distance from the statistic of all, not from their mean, tells the error: quantiles of
    stretches are biased (sectioning, Asmussen and Glynn 2007, III.5).
    """
    parts = np.array_split(samples, batches)
    return Values(statistic(samples), np.array([statistic(part) for part in parts]))


def effective_size(samples: Floats) -> float:
    """How many independent samples would tell the mean as well as these, in the order of time.

    The sum of autocorrelations ends where a pair of neighbouring ones is negative (Geyer 1992).
    O(n log n).
    """
    size = len(samples)
    centred = samples - samples.mean()
    if size < 4 or not centred.any():
        return float(size)
    padded = 1 << (2 * size - 1).bit_length()
    spectrum = np.fft.rfft(centred, padded)
    covariance = np.fft.irfft(spectrum * spectrum.conj(), padded)[: size // 2 * 2]
    pairs = (covariance[::2] + covariance[1::2]) / covariance[0]
    ended = np.flatnonzero(pairs <= 0)
    pairs = pairs[: ended[0]] if len(ended) else pairs
    time = 2 * float(np.minimum.accumulate(pairs).sum()) - 1
    return min(float(size), size / time) if time > 0 else float(size)


def num_batches(worth: float) -> int:
    """Into how many batches to cut samples that are worth `worth` independent ones."""
    return min(MOST_BATCHES, max(FEWEST_BATCHES, int(worth / WORTH_OF_A_BATCH)))


class Corrected(NamedTuple):
    """A p-value after Holm's correction, and the level at which its interval says the same."""

    p: float
    level: float


def holm(p_values: Sequence[float], level: float) -> list[Corrected]:
    """Correct p-values so that with chance 1 - `level` none of those below it is there by luck.

    Holm 1979: the smallest of m is held against level/m, the next against level/(m - 1), and so on
    until one is too large. An interval at its level here excludes 0 exactly if its p, corrected, is
    below `level`.
    """
    size = len(p_values)
    order = sorted(range(size), key=lambda place: p_values[place])
    corrected = [Corrected(1.0, level)] * size
    reached, stopped_at = 0.0, None
    for rank, place in enumerate(order):
        left = size - rank if stopped_at is None else stopped_at
        reached = max(reached, min(1.0, (size - rank) * p_values[place]))
        corrected[place] = Corrected(reached, level / left)
        if stopped_at is None and reached >= level:
            stopped_at = left
    return corrected
