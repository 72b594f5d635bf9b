"""The steady window of a run: where it begins, and whether the backlog is stable inside it."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schedsim.results.columns import RequestColumns
from schedsim.results.quantiles import Floats

BATCHES = 1000
SAMPLES_PER_BATCH = 5
GROWTH_SHARE = 0.02
GROWTH_DEVIATIONS = 3.0


class Window(NamedTuple):
    """The time `(start, end]` in seconds; arrivals at `start` belong to it, too."""

    start: float
    end: float

    @property
    def seconds(self) -> float:
        """Its length."""
        return self.end - self.start

    def holds(self, times: Floats) -> npt.NDArray[np.bool_]:
        """Which events happen inside; NaN never does."""
        return (times > self.start) & (times <= self.end)


class Steady(NamedTuple):
    """The window between the end of the warm-up and the last arrival, and its verdict."""

    window: Window
    stable: bool


def find_steady(requests: RequestColumns) -> Steady | None:
    """Cut the warm-up by MSER-5 on the backlog; None if all requests arrive at one time.

    The backlog is the number of requests in the system (arrived, not rejected, not finished),
    read at 5,000 equally spaced instants between the first and the last arrival, 5 to a batch.
    """
    accepted = requests.is_accepted
    arrivals = np.sort(requests.arrival[accepted])
    if not len(arrivals) or arrivals[0] == arrivals[-1]:
        return None
    first, last = float(arrivals[0]), float(arrivals[-1])
    departures = np.sort(requests.finished[accepted])  # NaN, never left, sorts to the end
    instants = np.linspace(first, last, BATCHES * SAMPLES_PER_BATCH + 1)[1:]
    backlog = np.searchsorted(arrivals, instants, side="right") - np.searchsorted(
        departures, instants, side="right"
    ).astype(np.float64)
    batches = backlog.reshape(BATCHES, SAMPLES_PER_BATCH).mean(axis=1)
    dropped = mser_truncation(batches)
    start = first + (last - first) * (dropped / BATCHES)
    num_arrivals = len(arrivals) - int(np.searchsorted(arrivals, start))
    return Steady(Window(start, last), is_stable(batches[dropped:], num_arrivals))


def mser_truncation(series: Floats) -> int:
    """How many leading values to drop so that the standard error of the rest's mean is least.

    The marginal standard error rule (White 1997), limited to the first half of the series.
    """
    size = len(series)
    centred = series - series.mean()
    left = np.arange(size, 0, -1)
    total = np.cumsum(centred[::-1])[::-1]
    squares = np.cumsum((centred * centred)[::-1])[::-1]
    error = (squares - total * total / left) / (left.astype(np.float64) ** 2)
    error = error[: size // 2 + 1]
    return int(np.argmax(error <= error.min() + 1e-12 * error[0]))  # earliest, rounding apart


def is_stable(backlog: Floats, num_arrivals: int) -> bool:
    """Whether a backlog, read at equally spaced instants, does not trend up.

    The trend is the growth of the least-squares line over the whole window, in requests. It is up
    if it exceeds both 2 % of the window's arrivals and three standard deviations of a Poisson
    count with the backlog's mean.
    """
    size = len(backlog)
    place = np.arange(size) - (size - 1) / 2
    slope = float((place * backlog).sum() / (place * place).sum())
    growth = slope * size
    noise = GROWTH_DEVIATIONS * float(np.sqrt(backlog.mean()))
    return growth <= max(GROWTH_SHARE * num_arrivals, noise)
