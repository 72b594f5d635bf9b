"""Kendall's rank correlation: how far two orders of the same things agree."""

import math
from collections.abc import Sequence

import numpy as np

from schedsim.results.quantiles import Floats, Ints


def kendall_tau(x: Sequence[float] | Floats, y: Sequence[float] | Floats) -> float | None:
    """Kendall's tau-b of paired values: 1 for the same order, -1 for the reverse.

    Pairs that tie in one of the two count for neither side (Kendall 1945). None where all values
    of one are equal, or there are fewer than two. O(n log n) (Knight 1966).
    """
    ranks_x, ranks_y = _ranks(np.asarray(x)), _ranks(np.asarray(y))
    assert len(ranks_x) == len(ranks_y), "tau is of pairs"
    order = np.lexsort((ranks_y, ranks_x))
    ranks_x, ranks_y = ranks_x[order], ranks_y[order]
    pairs = len(order) * (len(order) - 1) // 2
    tied_x, tied_y = _tied_pairs(ranks_x), _tied_pairs(ranks_y)
    if pairs in (tied_x, tied_y):
        return None
    tied_both = _tied_pairs(ranks_x * (len(order) + 1) + ranks_y)
    discordant = _inversions(ranks_y)
    concordant = pairs - tied_x - tied_y + tied_both - discordant
    return (concordant - discordant) / math.sqrt((pairs - tied_x) * (pairs - tied_y))


def _ranks(values: Floats) -> Ints:
    ranks: Ints = np.unique(values, return_inverse=True)[1].astype(np.int64)
    return ranks


def _tied_pairs(ranks: Ints) -> int:
    counts = np.unique(ranks, return_counts=True)[1].astype(np.int64)
    return int((counts * (counts - 1) // 2).sum())


def _inversions(values: Ints) -> int:
    """How many pairs stand in descending order, by merging sorted halves from the bottom up."""
    values, found, width = values.copy(), 0, 1
    while width < len(values):
        for left in range(0, len(values) - width, 2 * width):
            lower, upper = values[left : left + width], values[left + width : left + 2 * width]
            found += len(lower) * len(upper) - int(np.searchsorted(lower, upper, "right").sum())
            values[left : left + 2 * width] = np.sort(values[left : left + 2 * width])
        width *= 2
    return found
