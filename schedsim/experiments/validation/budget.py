"""The error budget: what each cause adds to the error of a figure, one cause after the other.

From the measured run to the free simulation in four steps, each with one thing more simulated:
decisions with the recorded times (a replay), the device's time, the engine's own time, and at last
decisions that answer to all this. The parts add up to the error because each is the difference of
two neighbours.

Where the free simulation soon decides otherwise, decisions held while times change are those of
neither side, and parts grow large and cancel. There `mean_step` tells more.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from schedsim.costs import StepCost
from schedsim.experiments.iterations import iterations_of
from schedsim.experiments.validation.cells import Cell
from schedsim.experiments.validation.metrics import METRICS, figure
from schedsim.experiments.validation.retiming import (
    Decided,
    other_device_time,
    other_engine,
    retimed_summary,
)
from schedsim.experiments.validation.simulations import Replay
from schedsim.experiments.validation.step_errors import of_all_rows, told_of
from schedsim.results.quantiles import Floats
from schedsim.results.stored_run import StoredRun, float_column

PARTS = ("decisions", "step_time", "host_time", "feedback")

TOLD = (*PARTS, "mean_step")
"""What a budget has beside the `error`."""

Summary = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Stages:
    """One run's summaries on the way from measured to simulated; the middle ones are None where
    decisions cannot be held while times change: in a closed loop, or where the replay, then None as
    well, was not exact.
    """

    measured: Summary
    replayed: Summary | None
    device_told: Summary | None
    engine_told: Summary | None
    simulated: Summary


def stages_of(
    cell: Cell, run: StoredRun, replay: Replay, cost: StepCost, simulated: Summary
) -> Stages:
    """The stages of one run of a cell."""
    if not replay.same:
        return Stages(run.summary, None, None, None, simulated)
    if is_closed_loop(cell):
        return Stages(run.summary, replay.summary, None, None, simulated)
    iterations = iterations_of(run)
    told = of_all_rows(run, iterations, told_of(cost, iterations))
    decided = Decided.of(replay.record)
    device = other_device_time(decided, _host_seconds(run), told.device)
    engine = other_engine(decided, told)
    return Stages(
        measured=run.summary,
        replayed=replay.summary,
        device_told=retimed_summary(replay.record, decided, device),
        engine_told=retimed_summary(replay.record, decided, engine),
        simulated=simulated,
    )


def error_budget(
    stages: Sequence[Stages], total: float | None, amplifications: Mapping[str, float | None]
) -> dict[str, dict[str, float | None]]:
    """Of each metric its `error` and the part of every cause, in shares of the measured mean.

    All are means over the runs. None where a run has no such figure, and for all causes where a
    replay was not exact. Without the middle stages what they tell apart is all `feedback`. Beside
    the parts stands `mean_step`: what iterations that all are off by `total`, the error of their
    summed time, would make of the metric, by its amplification.
    """
    return {
        name: {**_budget(name, stages), "mean_step": _mean_step(total, amplifications[name])}
        for name in METRICS
    }


def largest_cause(budget: Mapping[str, float | None]) -> str | None:
    """The cause of a metric's error: `step_time` where `mean_step` is most of it, else the largest
    of `PARTS` in the direction of the error."""
    error, mean_step = budget["error"], budget["mean_step"]
    if not error:
        return None
    if mean_step is not None and abs(error - mean_step) < abs(error) / 2:
        return "step_time"
    parts = {part: budget[part] for part in PARTS}
    known = {part: value * error for part, value in parts.items() if value is not None}
    return max(known, key=lambda part: known[part]) if known else None


def is_closed_loop(cell: Cell) -> bool:
    """Whether requests come when others end."""
    return cell.settings.concurrency is not None or cell.trace.parent is not None


def _budget(name: str, stages: Sequence[Stages]) -> dict[str, float | None]:
    parts: dict[str, float | None] = dict.fromkeys(("error", *PARTS))
    pairs = [(figure(s.measured, name), figure(s.simulated, name)) for s in stages]
    ends = [(there, here) for there, here in pairs if there is not None and here is not None]
    mean = float(np.mean([there for there, _ in ends])) if len(ends) == len(pairs) else 0.0
    if not mean:
        return parts
    found: dict[str, list[float]] = {part: [] for part in parts}
    for stage, (there, here) in zip(stages, ends, strict=True):
        found["error"].append((here - there) / mean)
        if stage.replayed is None:
            continue
        last = there
        between = (stage.replayed, stage.device_told, stage.engine_told)
        for part, summary in zip(PARTS, between, strict=False):
            value = None if summary is None else figure(summary, name)
            if value is not None:
                found[part].append((value - last) / mean)
                last = value
        found["feedback"].append((here - last) / mean)
    for part, values in found.items():
        if len(values) == len(stages):
            parts[part] = float(np.mean(values))
    return parts


def _mean_step(total: float | None, amplification: float | None) -> float | None:
    return None if total is None or amplification is None else total * amplification


def _host_seconds(run: StoredRun) -> Floats:
    """The engine's own time before each iteration; 0 where nobody measured it."""
    if "host_s" not in run.steps.column_names:
        return np.zeros(run.steps.num_rows)
    return np.nan_to_num(float_column(run.steps, "host_s"))
