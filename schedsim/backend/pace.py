"""`Pace`: how long batches take under a step-time model, one by one or many at once."""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from schedsim.costs.base import (
    AheadCost,
    PartedCost,
    PartsAhead,
    Seconds,
    StepCost,
    StepParts,
    ThrottledCost,
)
from schedsim.costs.features import kind_of
from schedsim.costs.noise import StepNoise
from schedsim.costs.throttle import Throttle, TokenRate
from schedsim.errors import ConfigError
from schedsim.scheduler import Batch

NOTHING_RUNS = StepParts(0.0, 0.0, 0.0)


class Pace(NamedTuple):
    """A step-time model as an engine asks it.

    `parts_of` says what a batch takes that could begin at a time, and checks it; it is asked once a
    batch, in their order. `parts_ahead`, if the model can be asked for many iterations at once,
    does not check. With noise both go by the batch's `iteration`.
    """

    parts_of: Callable[[Batch, float], StepParts]
    parts_ahead: Callable[[Batch, int], PartsAhead] | None


class TimesAhead(NamedTuple):
    """When iterations in a row are decided, begin and end, and the look after them."""

    decided_at: Seconds
    start: Seconds
    end: Seconds
    next_look: float

    def split(self, due: float) -> "tuple[TimesAhead, TimesAhead | None]":
        """Those decided before `due`, at least one, and the rest, if any."""
        looks = self.decided_at
        if looks[-1] < due or len(looks) == 1:
            return self, None
        count = max(1, int(looks.searchsorted(due)))
        first = TimesAhead(looks[:count], self.start[:count], self.end[:count], float(looks[count]))
        rest = TimesAhead(looks[count:], self.start[count:], self.end[count:], self.next_look)
        return first, rest


def make_pace(cost: StepCost, noise: StepNoise | None = None) -> Pace:
    """The pace of `cost`; of a negative or endless time it raises a ConfigError that names it.

    With `noise` every iteration takes its factor times as long, in all parts.
    """
    told = _teller(cost, noise)

    def parts_of(batch: Batch, now: float) -> StepParts:
        if batch.is_empty and not batch.transfers:
            return NOTHING_RUNS
        parts = told(batch, now)
        for part in parts:
            if not 0.0 <= part < math.inf:
                raise _bad_duration(part, batch, cost)
        return parts

    if not isinstance(cost, AheadCost) or _throttle_of(cost) is not None:
        return Pace(parts_of, None)  # a throttled device is asked after each batch
    if noise is None:
        return Pace(parts_of, cost.parts_ahead)

    def parts_ahead(batch: Batch, iterations: int) -> PartsAhead:
        host, device, gap = cost.parts_ahead(batch, iterations)
        factors = noise.factors(kind_of(batch), batch.iteration, iterations)
        return PartsAhead(host * factors, device * factors, gap * factors)

    return Pace(parts_of, parts_ahead)


def _teller(cost: StepCost, noise: StepNoise | None) -> Callable[[Batch, float], StepParts]:
    """What says what a batch takes that could begin at a time; asked in their order."""
    throttle = _throttle_of(cost)
    if throttle is not None:
        assert isinstance(cost, ThrottledCost)
        parts_after, rate = cost.parts_after, TokenRate(throttle.window_s)

        def throttled(batch: Batch, now: float) -> StepParts:
            told = parts_after(batch, rate.at(now))
            if noise is not None:
                told = _scattered(told, batch, noise)
            rate.ran(throttle.tokens_of(batch), now, told.device)
            return told

        return throttled
    parts = cost.parts if isinstance(cost, PartedCost) else _as_parts(cost.seconds)
    if noise is None:
        return lambda batch, now: parts(batch)
    return lambda batch, now: _scattered(parts(batch), batch, noise)


def _as_parts(seconds: Callable[[Batch], float]) -> Callable[[Batch], StepParts]:
    """All the device's."""
    return lambda batch: StepParts(0.0, seconds(batch), 0.0)


def _scattered(told: StepParts, batch: Batch, noise: StepNoise) -> StepParts:
    factor = noise.factor(kind_of(batch), batch.iteration)
    return StepParts(told.host * factor, told.device * factor, told.gap * factor)


def _throttle_of(cost: StepCost) -> Throttle | None:
    return cost.throttle if isinstance(cost, ThrottledCost) else None


def times_ahead(now: float, parts: PartsAhead, iterations: int) -> TimesAhead | None:
    """The times of so many iterations.

    The first one is decided at `now`. Every time is the one before plus a part, added in order,
    which gives the same bits as a loop. None if a part is negative or has no end.
    """
    host, device, gap = parts
    if isinstance(host, float) and isinstance(gap, float) and host == gap == 0.0:
        times = np.empty(iterations + 1)
        times[1:] = device
        looks, starts, ends = times[:-1], times[:-1], times[1:]
    else:
        times = np.empty(3 * iterations + 1)
        times[1::3], times[2::3], times[3::3] = parts
        looks, starts, ends = times[:-1:3], times[1::3], times[2::3]
    times[0] = now
    if not np.minimum.reduce(times[1:]) >= 0.0:  # NaN included
        return None
    np.add.accumulate(times, out=times)
    if not times[-1] < math.inf:
        return None
    return TimesAhead(looks, starts, ends, float(times[-1]))


def _bad_duration(duration: float, batch: Batch, cost: StepCost) -> ConfigError:
    return ConfigError(
        f"the step-time model {cost.describe().get('name')!r} gives {duration} s for "
        f"iteration {batch.iteration} ({batch.prefill_tokens} prefill tokens, "
        f"{batch.decode_requests} decodes); it must be finite and not negative"
    )
