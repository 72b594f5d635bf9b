"""`RateCurve`: one policy at several rates: where it stops keeping its objectives, both ways."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, NamedTuple

from schedsim.experiments.validation.load_shift import Curve, load_shift

SLO_SHARE = 0.9
"""A rate keeps the objectives if this share of the requests does."""


class AtRate(NamedTuple):
    """What is known of one rate (requests/s): curves by latency, and shares of requests that met
    the objectives, None where there are none."""

    rate: float
    curves: dict[str, Curve]
    measured_share: float | None
    simulated_share: float | None


@dataclass(frozen=True, slots=True)
class RateCurve:
    """A policy at `rates`, ascending. `shifts` are the loads that bring the latency curves
    together; `measured_capacity` and `simulated_capacity` the highest rates that keep the
    objectives, None where it is not between two of the rates."""

    policy: str
    rates: tuple[float, ...]
    shifts: dict[str, float | None]
    measured_capacity: float | None
    simulated_capacity: float | None

    @property
    def capacity_error(self) -> float | None:
        """(Simulated - measured) / measured."""
        if self.measured_capacity is None or self.simulated_capacity is None:
            return None
        return self.simulated_capacity / self.measured_capacity - 1

    def as_json(self) -> dict[str, Any]:
        """The fields as plain data."""
        return {**asdict(self), "capacity_error": self.capacity_error}


def rate_curve(policy: str, points: Sequence[AtRate]) -> RateCurve:
    """The curve through at least two rates."""
    points = sorted(points, key=lambda point: point.rate)
    names = [name for name in points[0].curves if all(name in p.curves for p in points)]
    rates = [point.rate for point in points]
    return RateCurve(
        policy=policy,
        rates=tuple(rates),
        shifts={name: load_shift([point.curves[name] for point in points]) for name in names},
        measured_capacity=highest_rate(rates, [point.measured_share for point in points]),
        simulated_capacity=highest_rate(rates, [point.simulated_share for point in points]),
    )


def highest_rate(rates: Sequence[float], shares: Sequence[float | None]) -> float | None:
    """Where the share first falls below `SLO_SHARE`, on straight lines between ascending rates.

    None where a share is unknown, the lowest rate does not keep it, or the highest does.
    """
    known = [share for share in shares if share is not None]
    if len(known) < len(shares) or known[0] < SLO_SHARE:
        return None
    for (low, kept), (high, missed) in pairwise(zip(rates, known, strict=True)):
        if missed < SLO_SHARE:
            return low + (high - low) * (kept - SLO_SHARE) / (kept - missed)
    return None
