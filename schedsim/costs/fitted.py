"""`fitted:FILE`: step time fitted to measured iterations, from a file of `schedsim calibrate`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from schedsim.costs.base import PartsAhead, Seconds, StepParts, decode_contexts
from schedsim.costs.curves import Curve
from schedsim.costs.features import (
    FEATURES,
    GROWING,
    HEATED,
    Features,
    features_of,
    features_of_steps,
    tokens_of,
)
from schedsim.costs.fitted_file import FittedFile, Part, read_fitted_file
from schedsim.costs.throttle import Throttle
from schedsim.results.step_log import StepLog
from schedsim.scheduler.batch import BatchShape


class _Sum(NamedTuple):
    """A part ready to be evaluated: the curve of each feature that costs something, by its place,
    those of `GROWING` apart; those of `HEATED` once more."""

    base: float
    curves: tuple[tuple[int, Curve], ...]
    growing: tuple[tuple[int, Curve], ...]
    heated: tuple[tuple[int, Curve], ...]


@dataclass(frozen=True, slots=True)
class FittedCost:
    """A `ThrottledCost`: each part a sum of curves, added in the order of `FEATURES`.

    No part falls when a batch gets larger in any way. `packaged`: the file came with the package.
    """

    path: str
    file: FittedFile = field(repr=False)
    packaged: bool = False
    _sums: tuple[_Sum, _Sum, _Sum] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        parts = self.file.parts
        sums = (_sum_of(parts.host), _sum_of(parts.device), _sum_of(parts.gap))
        object.__setattr__(self, "_sums", sums)

    def seconds(self, shape: BatchShape) -> float:
        """Seconds from a decision to the next, if work is there: the sum of the parts."""
        host, device, gap = self.parts(shape)
        return host + device + gap

    def parts(self, shape: BatchShape) -> StepParts:
        """Host, device and gap of an iteration."""
        features = features_of(shape, self.file.padding)
        calm, throttle = self._unthrottled(features), self.file.throttle
        if throttle is None:
            return calm
        device = throttle.sustained(calm.device, self._heated(features), throttle.tokens_of(shape))
        return StepParts(calm.host, device, calm.gap)

    @property
    def throttle(self) -> Throttle | None:
        """That of the file."""
        return self.file.throttle

    def parts_after(self, shape: BatchShape, rate: float) -> StepParts:
        """The same of a batch that the device begins at `rate` tokens/s."""
        features = features_of(shape, self.file.padding)
        calm, throttle = self._unthrottled(features), self.file.throttle
        if throttle is None:
            return calm
        tokens = throttle.tokens_of(shape)
        device = throttle.seconds(calm.device, self._heated(features), tokens, rate)
        return StepParts(calm.host, device, calm.gap)

    def parts_ahead(self, shape: BatchShape, iterations: int) -> PartsAhead:
        """Host, device and gap of consecutive iterations that only decode."""
        features = features_of(shape, self.file.padding)
        growing = (
            decode_contexts(shape, iterations),
            shape.longest_context + np.arange(iterations, dtype=np.float64),
        )
        host, device, gap = (_seconds_ahead(part, features, growing) for part in self._sums)
        throttle = self.file.throttle
        if throttle is not None:
            tokens = tokens_of(shape) + throttle.context * growing[0]
            device = throttle.sustained_each(device, self._heated(features), tokens)
        return PartsAhead(host, device, gap)

    def _unthrottled(self, features: Features) -> StepParts:
        host, device, gap = self._sums
        return StepParts(
            _seconds(host, features), _seconds(device, features), _seconds(gap, features)
        )

    def _heated(self, features: Features) -> float:
        """The device's seconds of `HEATED`, unthrottled."""
        return sum(curve.at(features[place]) for place, curve in self._sums[1].heated)

    def describe(self) -> dict[str, Any]:
        """The whole file."""
        return {"name": "fitted", "file": self.path, **self.file.model_dump(mode="json")}

    @property
    def model(self) -> str | None:
        """The model whose iterations were measured."""
        return self.file.provenance.get("model")

    @property
    def block_size(self) -> int | None:
        """The tokens in a KV block of the engine that was measured; None where no file says."""
        return self.file.provenance.get("block_size")

    @property
    def kernels(self) -> str | None:
        """Which kernels were measured, `paged` or `contiguous`; None where no file says."""
        return self.file.provenance.get("kernels")

    def beyond(self, steps: StepLog) -> list[str]:
        """A note, if counts of a run exceed all that was measured."""
        found = []
        for name, column in features_of_steps(steps.column, self.file.padding).items():
            most, seen = float(column.max(initial=0)), self.file.ranges.get(name, (0.0, 0.0))[1]
            if most > seen:
                found.append(f"{name} up to {most:,.0f} (fitted up to {seen:,.0f})")
        if not found:
            return []
        return [f"step times of {self.path} go beyond what was measured: {', '.join(found)}"]


def _sum_of(part: Part) -> _Sum:
    curves = [
        (place, Curve(part.terms[name].knots, part.terms[name].slopes))
        for place, name in enumerate(FEATURES)
        if name in part.terms
    ]
    first = len(FEATURES) - len(GROWING)
    return _Sum(
        part.base,
        tuple(curve for curve in curves if curve[0] < first),
        tuple((place - first, curve) for place, curve in curves if place >= first),
        tuple(curve for curve in curves if FEATURES[curve[0]] in HEATED),
    )


def _seconds(part: _Sum, features: Features) -> float:
    total = _before_growing(part, features)
    for place, curve in part.growing:
        total += curve.at(features[place - len(GROWING)])
    return total


def _seconds_ahead(part: _Sum, features: Features, growing: Sequence[Seconds]) -> Seconds | float:
    total: Seconds | float = _before_growing(part, features)
    for place, curve in part.growing:
        total = total + curve.at_each(growing[place])
    return total


def _before_growing(part: _Sum, features: Features) -> float:
    total = part.base
    for place, curve in part.curves:
        count = features[place]
        if count:  # most of them are 0 in most batches, and cost nothing then
            total += curve.at(count)
    return total


def make_fitted(file: FittedFile, path: str, packaged: bool = False) -> FittedCost:
    """The step-time model of a file's content."""
    return FittedCost(path, file, packaged)


def load_fitted(path: str) -> FittedCost:
    """Read the JSON file `path`, or the packaged one of this bare name.

    Raises:
        ConfigError: as `read_fitted_file`.
    """
    file, packaged = read_fitted_file(path)
    return FittedCost(path, file, packaged)
