"""What a fit cannot solve for, chosen by its error on iterations of sizes that it did not see."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from schedsim.costs.throttle import Throttle
from schedsim.experiments.fitting import STRAIGHT, fit, fitted_periods
from schedsim.experiments.iterations import Iterations
from schedsim.experiments.regions import sizes_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LEAST_ITERATIONS = 20
FOLDS = 5

WINDOW = 0.2
CONTEXT = 1e-3
"""Window (s) and weight of contexts of a `Throttle`, found on runs of traces: an 8B model on H200.

Designed batches, of which each lasts some hundredths of a second, do not tell them: shorter windows
fit these a little better, and loads that last for minutes worse.
"""

SLOWER = (0.1, 0.2, 0.3, 0.4)
"""How much longer arithmetic takes at the highest rate that was measured, to choose from."""

OUTLYING = 0.15
"""An iteration that is off by more counts as one that is off by so much: what kept it waiting is
nothing that these choices could mend."""

ENOUGH = 3000
"""Iterations by which is chosen; of more, every second, third … one is taken."""

LEAST_GAIN = 0.02
"""The share of the error by which a throttle has to be better than none."""


@dataclass(frozen=True, slots=True)
class Choice:
    """How straight curves are, and how the device slows down under load.

    `factor` is by how much in each iteration; None without a throttle.
    """

    straight: float
    throttle: Throttle | None = None
    factor: Floats | None = None


def choose(iterations: Iterations, rate: Floats) -> Choice:
    """The throttle with the least mean error on the first fold of sizes held out, then `straight`.

    `rate` is that of a throttle of `WINDOW` and `CONTEXT` at the end of every iteration (tokens/s).
    A throttle is looked for where the device timed most iterations by its own clock.
    """
    every = -(-len(iterations) // ENOUGH)
    chosen = _choose(iterations.take(np.arange(len(iterations)) % every == 0), rate[::every])
    if chosen.throttle is None:
        return chosen
    return replace(chosen, factor=chosen.throttle.factor(rate))


def _choose(iterations: Iterations, rate: Floats) -> Choice:
    choice = Choice(sorted(STRAIGHT)[len(STRAIGHT) // 2])
    if not _can_hold_out(iterations, sizes_of(iterations)):
        return replace(choice, straight=max(STRAIGHT))

    def error(choice: Choice) -> float:
        held_out = held_out_periods(iterations, choice, folds=(0,))
        assert held_out is not None
        sizes = np.abs(held_out / np.maximum(iterations.period, 1e-12) - 1)
        return float(np.nanmean(np.minimum(sizes, OUTLYING)))

    def best(choices: Iterable[Choice]) -> tuple[float, Choice]:
        return min(((error(one), one) for one in choices), key=lambda pair: pair[0])

    if np.mean(iterations.timed) > 0.5:
        least, throttled = best(_throttled(choice, rate, slower) for slower in SLOWER)
        if least < (1 - LEAST_GAIN) * error(choice):
            choice = throttled
    return best(replace(choice, straight=x) for x in sorted(STRAIGHT, reverse=True))[1]


def held_out_periods(
    iterations: Iterations, choice: Choice, folds: Sequence[int] = range(FOLDS)
) -> Floats | None:
    """Seconds of each iteration by a fit that saw none of its size; None for too few sizes.

    Sizes are dealt out to `FOLDS` folds as they first occur; those of other `folds` are NaN.
    """
    size, factor = sizes_of(iterations), choice.factor
    if not _can_hold_out(iterations, size):
        return None
    fitted = np.full(len(iterations), np.nan)
    for fold in folds:
        rows = size % FOLDS == fold
        seen, unseen = (None, None) if factor is None else (factor[~rows], factor[rows])
        parts = fit(iterations.take(~rows), choice.straight, seen)
        fitted[rows] = fitted_periods(parts, iterations.take(rows), unseen)
    return fitted


def _can_hold_out(iterations: Iterations, sizes: Ints) -> bool:
    return len(iterations) >= FOLDS * LEAST_ITERATIONS and sizes.max() >= FOLDS - 1


def _throttled(choice: Choice, rate: Floats, slower: float) -> Choice:
    slowdown = float(f"{slower / max(float(rate.max()), 1.0):.3g}")
    throttle = Throttle(window_s=WINDOW, slowdown=slowdown, context=CONTEXT)
    return replace(choice, throttle=throttle, factor=throttle.factor(rate))
