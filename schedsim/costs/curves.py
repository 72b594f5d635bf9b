"""`Curve`: a piecewise straight line from 0 that never falls, which is what a count may cost."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Curve:
    """Seconds by a count: at `knots[i]` it has `values[i]` and rises by `slopes[i]` a unit.

    The first knot is 0, with the value 0; beyond the last one the last slope goes on. Since no
    slope is negative and every value is the end of the piece before it, rounding included, the
    curve never falls, not even in the last bit. `at` and `at_each` give the same bits.
    """

    __slots__ = ("_arrays", "knots", "slopes", "values")

    def __init__(self, knots: Sequence[float], slopes: Sequence[float]) -> None:
        """`knots` ascend from 0; there are as many `slopes`, none negative."""
        self.knots = [float(knot) for knot in knots]
        self.slopes = [float(slope) for slope in slopes]
        self.values = [0.0]
        for (start, end), slope in zip(pairwise(self.knots), self.slopes, strict=False):
            self.values.append(self.values[-1] + slope * (end - start))
        self._arrays = [np.array(column) for column in (self.knots, self.slopes, self.values)]

    def at(self, count: float) -> float:
        """Seconds at a count, which is not negative."""
        place = bisect_right(self.knots, count) - 1
        return self.values[place] + self.slopes[place] * (count - self.knots[place])

    def at_each(self, counts: Floats) -> Floats:
        """Seconds at each of many counts."""
        knots, slopes, values = self._arrays
        places = knots.searchsorted(counts, side="right") - 1
        seconds: Floats = values[places] + slopes[places] * (counts - knots[places])
        return seconds


def pieces(counts: Floats, knots: Sequence[float]) -> Floats:
    """[counts, knots]: how far each count reaches into each piece, so that a curve with these knots
    is a sum of its columns times the slopes."""
    starts = np.array(knots, dtype=np.float64)
    widths = np.append(np.diff(starts), np.inf)
    reach: Floats = np.clip(counts[:, None] - starts, 0.0, widths)
    return reach
