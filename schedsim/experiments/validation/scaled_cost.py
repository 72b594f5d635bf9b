"""`scaled`: a step time that takes longer or shorter by one factor, for what-if simulations."""

from dataclasses import dataclass
from typing import Any

from schedsim.costs.base import (
    AheadCost,
    PartedCost,
    PartsAhead,
    StepCost,
    StepParts,
    ThrottledCost,
)
from schedsim.costs.throttle import Throttle
from schedsim.scheduler.batch import BatchShape


def scaled(cost: StepCost, factor: float) -> StepCost:
    """`cost` with all of its seconds times `factor`; it is asked as `cost` can be."""
    kind: type[_Scaled] = _Scaled
    if isinstance(cost, ThrottledCost):
        kind = _ScaledThrottled
    elif isinstance(cost, PartedCost):
        kind = _ScaledPartsAhead if isinstance(cost, AheadCost) else _ScaledParts
    elif isinstance(cost, AheadCost):
        kind = _ScaledAhead
    return kind(cost, factor)


@dataclass(frozen=True, slots=True)
class _Scaled:
    cost: Any
    factor: float

    def seconds(self, shape: BatchShape) -> float:
        return self.factor * float(self.cost.seconds(shape))

    def describe(self) -> dict[str, Any]:
        return {**self.cost.describe(), "scaled_by": self.factor}


class _ScaledAhead(_Scaled):
    __slots__ = ()

    def parts_ahead(self, shape: BatchShape, iterations: int) -> PartsAhead:
        host, device, gap = self.cost.parts_ahead(shape, iterations)
        return PartsAhead(self.factor * host, self.factor * device, self.factor * gap)


class _ScaledParts(_Scaled):
    __slots__ = ()

    def parts(self, shape: BatchShape) -> StepParts:
        host, device, gap = self.cost.parts(shape)
        return StepParts(self.factor * host, self.factor * device, self.factor * gap)


class _ScaledPartsAhead(_ScaledAhead, _ScaledParts):
    __slots__ = ()


class _ScaledThrottled(_ScaledPartsAhead):
    __slots__ = ()

    @property
    def throttle(self) -> Throttle | None:
        throttle: Throttle | None = self.cost.throttle
        return throttle

    def parts_after(self, shape: BatchShape, rate: float) -> StepParts:
        host, device, gap = self.cost.parts_after(shape, rate)
        return StepParts(self.factor * host, self.factor * device, self.factor * gap)
