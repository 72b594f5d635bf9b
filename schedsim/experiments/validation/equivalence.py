"""`Agreement`: a simulated figure against repeats of the measured one, with a verdict."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from schedsim.experiments.student_t import critical_value, two_sided_p

LEVEL = 0.05
"""The chance at which a simulation that is off by the margin is called equivalent."""

Verdict = Literal["equivalent", "different", "inconclusive"]
Place = Literal["margin", "spread", "beyond", "far"]


@dataclass(frozen=True, slots=True)
class Agreement:
    """How far a simulated figure is from the mean of the repeats, all in shares of that mean.

    `error` is signed, `spread` the largest repeat less the smallest, `half_width` half the
    interval that holds the true error with chance 1 - 2 · `LEVEL`, and `p` that of the two
    one-sided tests; all three are None for a single run, and where the mean is 0. Then `error` is
    0 if the simulated figure is 0, too, and else None.
    """

    error: float | None
    spread: float | None
    half_width: float | None
    p: float | None
    margin: float

    @property
    def verdict(self) -> Verdict:
        """`equivalent` where the whole interval is within the margin, `different` where it is
        outside, and `inconclusive` where the repeats do not tell: never a pass."""
        if self.error is None or self.half_width is None:
            return "inconclusive"
        if abs(self.error) + self.half_width < self.margin:
            return "equivalent"
        return "different" if abs(self.error) - self.half_width > self.margin else "inconclusive"

    @property
    def place(self) -> Place | None:
        """Where the error itself stands: in the margin, else in the spread of the repeats, else
        beyond both, and far if beyond twice the wider of them."""
        if self.error is None:
            return None
        size, spread = abs(self.error), self.spread or 0.0
        if size <= self.margin:
            return "margin"
        if size <= spread:
            return "spread"
        return "far" if size > 2 * max(self.margin, spread) else "beyond"

    def as_json(self) -> dict[str, Any]:
        """The figures and both judgements."""
        return {**asdict(self), "verdict": self.verdict, "place": self.place}


def agreement(measured: Sequence[float], simulated: float, margin: float) -> Agreement:
    """Hold `simulated` against the repeats, which are independent of each other.

    Two one-sided t tests (Schuirmann 1987): the error is within ± `margin` at `LEVEL` exactly if
    the interval of 1 - 2 · `LEVEL` around it is. What the mean of the repeats itself may be off is
    in the interval; that errors are shares of this mean is not, which matters to second order.
    """
    mean = float(np.mean(measured))
    if mean == 0.0:
        return Agreement(None if simulated else 0.0, None, None, None, margin)
    error = (simulated - mean) / mean
    size = len(measured)
    if size < 2:
        return Agreement(error, None, None, None, margin)
    spread = spread_of(measured)
    standard_error = float(np.std(measured, ddof=1)) / mean / math.sqrt(size)
    freedom = size - 1
    if standard_error == 0.0:
        return Agreement(error, spread, 0.0, float(abs(error) >= margin), margin)
    half_width = critical_value(2 * LEVEL, freedom) * standard_error
    p = _upper_tail((margin - abs(error)) / standard_error, freedom)
    return Agreement(error, spread, half_width, p, margin)


def spread_of(repeats: Sequence[float]) -> float | None:
    """(Largest - smallest) / mean, which is not 0; None for a single repeat."""
    if len(repeats) < 2:
        return None
    return (max(repeats) - min(repeats)) / float(np.mean(repeats))


def _upper_tail(t: float, freedom: float) -> float:
    """The chance of a value above `t`."""
    half = two_sided_p(t, freedom) / 2
    return half if t >= 0 else 1 - half
