"""Linear interpolation between measured points: along one axis, and in a grid of several."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from schedsim.costs.base import Seconds

Axis = tuple[float, ...]


class Grid:
    """Times at every combination of the points of its axes, and multilinear in between.

    At a point of the grid the value is the measured one, to the bit. Before the first point of an
    axis the value is that at the first. Beyond the last it grows in proportion to the coordinate
    from the value at the last. `at` and `along` add in the same order and give the same bits. A
    lookup is O(2^axes).
    """

    def __init__(self, axes: Sequence[Sequence[float]], values: npt.NDArray[np.float64]) -> None:
        """Each axis ascends; `values` has their shape."""
        self.axes: tuple[Axis, ...] = tuple(tuple(map(float, axis)) for axis in axes)
        assert values.shape == tuple(map(len, self.axes)), "values do not have the axes' shape"
        self._values: list[float] = values.ravel().tolist()
        self._strides = [int(np.prod(values.shape[i + 1 :])) for i in range(values.ndim)]

    def at(self, *point: float) -> float:
        """The value at a point, a coordinate an axis."""
        *outer, last = point
        axis = self.axes[-1]
        left, right, weight = _cell(axis, last)
        below, above = self._columns(outer, (left, right))
        value = (1.0 - weight) * below + weight * above
        return value * (last / axis[-1]) if last > axis[-1] else value

    def along(self, outer: Sequence[float], last: npt.NDArray[np.float64]) -> Seconds:
        """`at` for many coordinates on the last axis, those on the others given once."""
        axis = np.array(self.axes[-1])
        curve = np.array(self._columns(outer, range(len(axis))))
        inside = np.clip(last, axis[0], axis[-1])
        left = np.searchsorted(axis, inside, side="right") - 1
        right = np.minimum(left + 1, len(axis) - 1)
        weight = (inside - axis[left]) / np.where(left == right, 1.0, axis[right] - axis[left])
        value = (1.0 - weight) * curve[left] + weight * curve[right]
        grown: Seconds = np.where(last > axis[-1], value * (last / axis[-1]), value)
        return grown

    def _columns(self, outer: Sequence[float], columns: Sequence[int]) -> list[float]:
        """The values in these places of the last axis, interpolated along all the others."""
        cells, scale = [], 1.0
        for axis, x, stride in zip(self.axes, outer, self._strides, strict=False):
            left, right, weight = _cell(axis, x)
            cells.append((left * stride, right * stride, weight))
            if x > axis[-1]:
                scale *= x / axis[-1]
        starts = [sum(places) for places in product(*((left, right) for left, right, _ in cells))]
        found = []
        for column in columns:
            corners = [self._values[start + column] for start in starts]
            for _, _, weight in cells:  # the first axis is the outermost of the corners
                half = len(corners) // 2
                corners = [
                    (1.0 - weight) * corners[i] + weight * corners[half + i] for i in range(half)
                ]
            found.append(corners[0] * scale)
        return found


def _cell(axis: Axis, x: float) -> tuple[int, int, float]:
    """The points of `axis` around `x`, and how far between them it is; one point twice outside."""
    if x <= axis[0]:
        return 0, 0, 0.0
    left = bisect_right(axis, x) - 1
    if left == len(axis) - 1:
        return left, left, 0.0
    return left, left + 1, (x - axis[left]) / (axis[left + 1] - axis[left])


def every_count(counts: Sequence[float], times: Sequence[float]) -> npt.NDArray[Any]:
    """The times of 0, 1, 2 … up to the last of `counts`, which ascend; linear between them.

    Before the first of them the time is that of the first; of nothing it is 0.
    """
    every = np.interp(np.arange(int(counts[-1]) + 1), counts, times)
    every[0] = 0.0
    return every
