"""Capacity: tokens per second in the middle of a run's work, while somebody is always in line."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schedsim.experiments.validation.equivalence import Agreement, agreement
from schedsim.results.quantiles import Floats
from schedsim.results.steady import Window
from schedsim.results.stored_run import float_column, step_ends

SATURATED = 0.95
"""The share of the window in which requests have to wait for a run to count as saturated."""

FIRST, LAST = 0.2, 0.6
"""The shares of a run's work between which it is timed: the engine has filled up, and not yet run
dry."""

KINDS = ("total_tokens_per_s", "output_tokens_per_s")


@dataclass(frozen=True, slots=True)
class Tables:
    """What is read of a run: its summary and its iterations."""

    summary: dict[str, Any]
    steps: Any


class Speed(NamedTuple):
    """Tokens per second in a run's own window, and the share of it in which a request waited."""

    tokens_per_s: float
    window: Window
    in_line: float


@dataclass(frozen=True, slots=True)
class Capacity:
    """Tokens per second of repeats and of a simulation, by kind.

    `window` is that of the total tokens in the first repeat, `in_line` the smallest share of a
    window, over runs and kinds, in which a request waited. Without `agreements` they are not
    saturated, and their throughput is the load that was offered.
    """

    window: Window
    in_line: float
    measured: dict[str, list[float]]
    simulated: dict[str, float]
    agreements: dict[str, Agreement]

    @property
    def is_saturated(self) -> bool:
        """Whether there was always somebody in line, so that this is what the engine can do."""
        return self.in_line >= SATURATED

    def mean(self, name: str) -> float:
        """The mean of the repeats of one of `KINDS`."""
        return float(np.mean(self.measured[name]))

    def as_json(self) -> dict[str, Any]:
        """The fields as plain data."""
        return {
            "window_s": [self.window.start, self.window.end],
            "in_line": self.in_line,
            "saturated": self.is_saturated,
            **{
                name: {
                    "measured": self.mean(name),
                    "repeats": self.measured[name],
                    "simulated": self.simulated[name],
                    **found.as_json(),
                }
                for name, found in self.agreements.items()
            },
        }


def capacity_of(measured: Sequence[Tables], simulated: Tables, margin: float) -> Capacity | None:
    """Compare what engines did per second of the same work; None where a run did none."""
    speeds = [speeds_of(run) for run in (*measured, simulated)]
    if any(len(found) < len(KINDS) for found in speeds):
        return None
    in_line = min(speed.in_line for found in speeds for speed in found.values())
    rates = {name: [found[name].tokens_per_s for found in speeds] for name in KINDS}
    agreements = {}
    if in_line >= SATURATED:
        agreements = {name: agreement(told[:-1], told[-1], margin) for name, told in rates.items()}
    return Capacity(
        window=speeds[0][KINDS[0]].window,
        in_line=in_line,
        measured={name: told[:-1] for name, told in rates.items()},
        simulated={name: told[-1] for name, told in rates.items()},
        agreements=agreements,
    )


def speeds_of(run: Tables) -> dict[str, Speed]:
    """The speed of a run for each of `KINDS`, between `FIRST` and `LAST` of its work.

    A window of work and not of time: who is slower by one per cent takes one per cent longer for
    it, however unevenly tokens come. Work is tokens computed, or emitted, in straight lines over
    each iteration; what was computed again counts as work and not as tokens. A kind of which there
    is nothing is left out.
    """
    steps, summary = run.steps, run.summary
    ends = step_ends(steps)
    times = np.column_stack([float_column(steps, "start"), ends]).ravel()
    waiting = float_column(steps, "waiting") > 0
    emitted = float_column(steps, "sampled")
    computed = float_column(steps, "prefill_tokens") + float_column(steps, "decode_requests")
    output = summary["output_tokens"]
    useful = (summary["prompt_tokens"] + output, output)
    found = {}
    for name, work, tokens in zip(KINDS, (computed, emitted), useful, strict=True):
        done = np.cumsum(work)
        if not len(done) or not done[-1]:
            continue
        shares = np.column_stack([done - work, done]).ravel() / done[-1]
        start, end = (float(np.interp(share, shares, times)) for share in (FIRST, LAST))
        if start < end:
            window = Window(start, end)
            rate = (LAST - FIRST) * tokens / window.seconds
            found[name] = Speed(rate, window, _share_in_line(ends, waiting, window))
    return found


def _share_in_line(ends: Floats, waiting: npt.NDArray[np.bool_], window: Window) -> float:
    """The share of the window in which a request waited: from the end of an iteration to that of
    the next, if both left somebody in line."""
    both = waiting.copy()
    both[1:] &= waiting[:-1]
    lasted = np.diff(ends.clip(window.start, window.end), prepend=window.start)
    return float(lasted[both].sum()) / window.seconds
