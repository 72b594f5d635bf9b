"""Interpolation in grids: scipy's inside, the measured value at each point, told rules outside."""

from fractions import Fraction
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st
from scipy.interpolate import RegularGridInterpolator

from schedsim.costs.interpolation import Grid, every_count


class Case(NamedTuple):
    axes: list[list[float]]
    values: npt.NDArray[np.float64]
    grid: Grid


@st.composite
def cases(draw: st.DrawFn, ascending: bool = False) -> Case:
    """A grid of one to four axes with at least two points each."""
    points = st.lists(st.integers(1, 2000), min_size=2, max_size=4, unique=True)
    axes = [
        [float(x) for x in sorted(axis)] for axis in draw(st.lists(points, min_size=1, max_size=4))
    ]
    values = np.random.default_rng(draw(st.integers(0, 2**32 - 1))).uniform(
        0.0, 100.0, [len(axis) for axis in axes]
    )
    if ascending:
        for axis in range(values.ndim):
            values = values.cumsum(axis=axis)
    return Case(axes, values, Grid(axes, values))


def draw_point(data: st.DataObject, axes: list[list[float]], beyond: float) -> list[float]:
    return [data.draw(st.floats(0.0, beyond * axis[-1])) for axis in axes]


@given(case=cases(), data=st.data())
def test_inside_it_is_that_of_scipy(case: Case, data: st.DataObject) -> None:
    point = [data.draw(st.floats(axis[0], axis[-1])) for axis in case.axes]
    theirs = RegularGridInterpolator(case.axes, case.values)(point)[0]
    assert np.isclose(case.grid.at(*point), theirs, rtol=1e-12, atol=1e-9)


@given(case=cases())
def test_at_a_point_it_is_the_measured_value(case: Case) -> None:
    for point, value in zip(product(*case.axes), case.values.ravel(), strict=True):
        assert case.grid.at(*point) == value


@given(case=cases(), data=st.data())
def test_below_it_is_the_edge_and_beyond_it_grows_in_proportion(
    case: Case, data: st.DataObject
) -> None:
    point = draw_point(data, case.axes, 3.0)
    edge = [min(max(x, axis[0]), axis[-1]) for x, axis in zip(point, case.axes, strict=True)]
    scale = np.prod([max(x / axis[-1], 1.0) for x, axis in zip(point, case.axes, strict=True)])
    assert np.isclose(case.grid.at(*point), case.grid.at(*edge) * scale, rtol=1e-12)


@given(case=cases(), data=st.data())
def test_many_at_once_are_those_one_by_one_to_the_bit(case: Case, data: st.DataObject) -> None:
    *outer, _ = draw_point(data, case.axes, 2.0)
    last = case.axes[-1]
    found = data.draw(st.lists(st.floats(0.0, 2.0 * last[-1]), min_size=1, max_size=20))
    found += last
    together = case.grid.along(outer, np.array(found))
    assert together.tolist() == [case.grid.at(*outer, x) for x in found]


@given(case=cases(ascending=True), data=st.data())
def test_where_the_values_ascend_so_does_it(case: Case, data: st.DataObject) -> None:
    one, other = (draw_point(data, case.axes, 2.0) for _ in range(2))
    low, high = zip(*(sorted(pair) for pair in zip(one, other, strict=True)), strict=True)
    assert case.grid.at(*low) <= case.grid.at(*high) * (1 + 1e-12)


@given(times=st.dictionaries(st.integers(1, 500), st.floats(0.0, 1e6), min_size=1, max_size=8))
def test_every_count_lies_on_the_line_between_its_neighbours(times: dict[int, float]) -> None:
    counts = sorted(times)
    every = every_count(counts, [times[n] for n in counts])
    assert len(every) == counts[-1] + 1
    assert every[0] == 0.0
    assert all(every[1 : counts[0]] == times[counts[0]])
    assert all(every[n] == times[n] for n in counts)
    for left, right in pairwise(counts):
        for n in range(left, right):
            part = Fraction(n - left, right - left)
            line = Fraction(times[left]) * (1 - part) + Fraction(times[right]) * part
            assert np.isclose(every[n], float(line), rtol=1e-12, atol=1e-9)
