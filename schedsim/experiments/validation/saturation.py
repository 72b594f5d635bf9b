"""Capacity: tokens per second while work is always in line, in a window that all runs share."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from schedsim.experiments.validation.equivalence import Agreement, agreement
from schedsim.results.steady import Window
from schedsim.results.stored_run import float_column, step_ends

SATURATED = 0.95
"""The share of the window in which requests have to wait for a run to count as saturated."""

KINDS = ("total_tokens_per_s", "output_tokens_per_s")


@dataclass(frozen=True, slots=True)
class Capacity:
    """Tokens per second in `window`, the part that the busy windows of all runs have in common.

    `in_line` is the smallest share of it, over the runs, in which a request waited. Without
    `agreements` they are not saturated, and their throughput is the load that was offered.
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


@dataclass(frozen=True, slots=True)
class Tables:
    """What is read of a run: its summary and its two tables."""

    summary: dict[str, Any]
    requests: Any
    steps: Any


def capacity_of(measured: Sequence[Tables], simulated: Tables, margin: float) -> Capacity | None:
    """Compare what engines did per second in the busy window; None where a run has none."""
    runs = [*measured, simulated]
    windows = [window for window in map(busy_window, runs) if window is not None]
    if len(windows) < len(runs):
        return None
    window = Window(max(w.start for w in windows), min(w.end for w in windows))
    if window.seconds <= 0:
        return None
    rates = [tokens_per_s(run, window) for run in runs]
    in_line = min(share_in_line(run, window) for run in runs)
    there = {name: [rate[name] for rate in rates[:-1]] for name in KINDS}
    here = rates[-1]
    agreements = {}
    if in_line >= SATURATED:
        agreements = {name: agreement(there[name], here[name], margin) for name in KINDS}
    return Capacity(window, in_line, there, here, agreements)


def busy_window(run: Tables) -> Window | None:
    """The steady window, longer by what is left in line at its end: from the end of the warm-up to
    the last arrival, or to the last iteration that left somebody in line if that is later."""
    steady = run.summary["steady_window_s"]
    if steady is None or steady[0] >= steady[1]:
        return None
    in_line = step_ends(run.steps)[float_column(run.steps, "waiting") > 0]
    return Window(steady[0], max(steady[1], float(in_line.max(initial=0.0))))


def tokens_per_s(run: Tables, window: Window) -> dict[str, float]:
    """Output tokens, and with the prompts of requests whose first token came, per second."""
    ends = step_ends(run.steps)
    output = float(float_column(run.steps, "sampled")[window.holds(ends)].sum())
    started = window.holds(float_column(run.requests, "first_token"))
    prompts = float(float_column(run.requests, "prompt_tokens")[started].sum())
    rates = ((prompts + output) / window.seconds, output / window.seconds)
    return dict(zip(KINDS, rates, strict=True))


def share_in_line(run: Tables, window: Window) -> float:
    """The share of the window in which a request waited: from the end of an iteration to that of
    the next, if both left somebody in line."""
    ends = step_ends(run.steps).clip(window.start, window.end)
    waiting = float_column(run.steps, "waiting") > 0
    waiting[1:] &= waiting[:-1]
    lasted = np.diff(ends, prepend=window.start)
    return float(lasted[waiting].sum()) / window.seconds
