"""What of a run may be taken for independent: whole replications, or batches of its requests."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

import numpy as np

from schedsim.experiments.arms import Arm, Measured
from schedsim.experiments.intervals import (
    FEWEST_BATCHES,
    Statistic,
    Values,
    effective_size,
    in_batches,
    num_batches,
    without_line,
)
from schedsim.results.columns import Mask
from schedsim.results.quantiles import QUANTILES, Floats

LEAST_IN_TAIL = 2
"""A quantile is told of batches that have this many samples beyond it on average."""


@dataclass(frozen=True, slots=True)
class Samples:
    """One metric of one arm; without `values` where there are too few samples for an interval.

    `size` and `effective_size` count requests, or runs.
    """

    value: float
    size: int
    values: Values | None = field(repr=False)
    effective_size: float | None


class Pair(NamedTuple):
    """A metric of two arms; `paired` says that part i of one belongs to part i of the other, and
    `drifts` that parts are pairs that follow each other in time."""

    a: Values
    b: Values
    paired: bool
    drifts: bool = False


class Source(Protocol):
    """Where the values of arms come from; `path` is that of a metric, without its window."""

    def samples(self, arm: Arm, path: tuple[str, ...]) -> Samples | None:
        """The values of one arm; None if it has none."""
        ...

    def pair(self, a: Arm, b: Arm, path: tuple[str, ...]) -> Pair | None:
        """The values of two arms; None if there is nothing to compare."""
        ...

    def notes(self) -> list[str]:
        """What was left out, after everything was asked for."""
        ...


class Replications:
    """A value for each run, out of its summary; arms are paired by seed."""

    def __init__(self, window: str) -> None:
        self._window = window
        self._notes: dict[str, None] = {}

    def samples(self, arm: Arm, path: tuple[str, ...]) -> Samples | None:
        by_seed = self._by_seed(arm, path)
        if not by_seed:
            return None
        values = np.array(list(by_seed.values()))
        size = len(values)
        parts = Values.of_mean(values) if size > 1 else None
        return Samples(float(values.mean()), size, parts, float(size))

    def pair(self, a: Arm, b: Arm, path: tuple[str, ...]) -> Pair | None:
        of_a, of_b = self._by_seed(a, path), self._by_seed(b, path)
        common = [seed for seed in of_a if seed in of_b]
        if len(common) > 1:
            if len(common) < max(len(of_a), len(of_b)):
                self._notes[
                    f"{a.name} and {b.name} are compared on their {len(common)} common seeds"
                ] = None
            return Pair(_at(of_a, common), _at(of_b, common), True)
        if min(len(of_a), len(of_b)) > 1:
            return Pair(_at(of_a, list(of_a)), _at(of_b, list(of_b)), False)
        return None

    def notes(self) -> list[str]:
        return list(self._notes)

    def _by_seed(self, arm: Arm, path: tuple[str, ...]) -> dict[int, float]:
        found = {}
        for seed, run in zip(arm.seeds, arm.runs, strict=True):
            value = figure(run, path, self._window)
            if value is not None:
                found[seed] = value
        return found


class Batches:
    """Values of requests in the order of their arrival, in stretches of equal numbers.

    Arms that served the same load are paired request by request, in the window that all of these
    have in common.
    """

    def __init__(self, window: str, arms: Sequence[Arm]) -> None:
        self._window = window
        self._inside = {arm.name: _steady_rows(arm.runs[0], window) for arm in arms}
        self._peers = {arm.name: _same_load(arm, arms) for arm in arms}
        self._notes: dict[str, None] = {}

    def samples(self, arm: Arm, path: tuple[str, ...]) -> Samples | None:
        run = arm.runs[0]
        column = _column(run, path)
        if column is None:
            value = figure(run, path, self._window)
            return None if value is None else Samples(value, 1, None, None)
        values = column[self._rows(arm) & ~np.isnan(column)]
        if not len(values):
            return None
        statistic = _statistic(path)
        worth = effective_size(values)
        batches = _batches(values, worth, path)
        return Samples(
            statistic(values),
            len(values),
            in_batches(values, statistic, batches) if batches else None,
            worth,
        )

    def pair(self, a: Arm, b: Arm, path: tuple[str, ...]) -> Pair | None:
        of_a, of_b = _column(a.runs[0], path), _column(b.runs[0], path)
        if of_a is None or of_b is None:
            return None
        rows_a, rows_b = self._rows(a) & ~np.isnan(of_a), self._rows(b) & ~np.isnan(of_b)
        paired = b.name in self._peers[a.name]
        if paired:
            both = rows_a & rows_b
            left_out = int(max(rows_a.sum(), rows_b.sum()) - both.sum())
            if left_out:
                self._notes[
                    f"{left_out} requests have a {path[1]} in only one of {a.name} and {b.name}; "
                    "they are left out of the difference"
                ] = None
            rows_a = rows_b = both
        of_a, of_b = of_a[rows_a], of_b[rows_b]
        if not len(of_a) or not len(of_b):
            return None
        series = (without_line(of_b - of_a),) if paired else (of_a, of_b)
        batches = min(_batches(values, effective_size(values), path) for values in series)
        if not batches:
            return None
        parts = [in_batches(values, _statistic(path), batches) for values in (of_a, of_b)]
        return Pair(parts[0], parts[1], paired, drifts=paired)

    def notes(self) -> list[str]:
        return list(self._notes)

    def _rows(self, arm: Arm) -> Mask:
        rows = self._inside[arm.name]
        for peer in self._peers[arm.name]:
            rows = rows & self._inside[peer]
        return rows


def figure(run: Measured, path: tuple[str, ...], window: str) -> float | None:
    """A figure of a summary; None if it has none."""
    part: Any = run.summary[path[0]]
    for key in (window, *path[1:]):
        if part is None:
            return None
        part = part[key]
    return None if part is None else float(part)


def _at(by_seed: dict[int, float], seeds: Sequence[int]) -> Values:
    return Values.of_mean(np.array([by_seed[seed] for seed in seeds]))


def _steady_rows(run: Measured, window: str) -> Mask:
    """The requests that arrived in the window."""
    steady = run.summary["steady_window_s"]
    if window == "whole" or steady is None:
        return np.ones(len(run.arrival), dtype=np.bool_)
    inside: Mask = (run.arrival >= steady[0]) & (run.arrival <= steady[1])
    return inside


def _same_load(arm: Arm, arms: Sequence[Arm]) -> list[str]:
    return [other.name for other in arms if other.runs[0].same_load(arm.runs[0])]


def _column(run: Measured, path: tuple[str, ...]) -> Floats | None:
    """The metric of each request, NaN for none; None where it is not one of requests."""
    if path[0] == "latency":
        return run.columns.get(path[1])
    if path == ("goodput", "share"):
        return run.met_objectives()
    return None


def _statistic(path: tuple[str, ...]) -> Statistic:
    for name, q, _ in QUANTILES:
        if path[-1] == name:
            return lambda values: float(np.quantile(values, q))
    return lambda values: float(values.mean())


def _batches(values: Floats, worth: float, path: tuple[str, ...]) -> int:
    """Into how many batches to cut `values`; 0 where too few are too small for the metric."""
    needed = {name: count for name, _, count in QUANTILES}.get(path[-1], 1)
    batches = min(num_batches(worth), len(values) // (LEAST_IN_TAIL * needed))
    return batches if batches >= FEWEST_BATCHES else 0
