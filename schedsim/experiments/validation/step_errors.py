"""A step time against the batches of a measured run: no decision depends on it here."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from schedsim.costs import PartedCost, StepCost
from schedsim.costs.base import ThrottledCost
from schedsim.experiments.calibration import by_kind, error_figures
from schedsim.experiments.iterations import KINDS, Iterations, iterations_of, joined
from schedsim.experiments.validation.retiming import Durations
from schedsim.results.quantiles import Floats
from schedsim.results.stored_run import StoredRun

Figures = dict[str, Any]


def told_of(cost: StepCost, iterations: Iterations) -> Durations:
    """What a step time says of each iteration: all the device's where it knows no parts.

    A throttled device has run what it had run there.
    """
    shapes = iterations.shapes()
    if isinstance(cost, ThrottledCost) and cost.throttle is not None:
        before, _ = iterations.token_rates(cost.throttle.window_s, cost.throttle.context)
        told = [cost.parts_after(*each) for each in zip(shapes, before.tolist(), strict=True)]
        return Durations(*np.array(told).T)
    if isinstance(cost, PartedCost):
        host, device, gap = np.array([cost.parts(shape) for shape in shapes]).T
        return Durations(host, device, gap)
    none = np.zeros(len(shapes))
    return Durations(none, np.array([cost.seconds(shape) for shape in shapes]), none)


def of_all_rows(run: StoredRun, iterations: Iterations, told: Durations) -> Durations:
    """The same for every row of the run's steps: those that ran nothing take no time."""

    def spread(seconds: Floats) -> Floats:
        rows = np.zeros(run.steps.num_rows)
        rows[iterations.row] = seconds
        return rows

    return Durations(spread(told.host), spread(told.device), spread(told.gap))


def step_errors(runs: Sequence[StoredRun], cost: StepCost) -> Figures:
    """How far the step time is off on the batches of all runs together.

    `error_figures` of the whole period, by kind, and by kind and size; each has `share`, its part
    of the error of the total time, so that the shares of a division add up to `total` of all.
    `parts` holds measured and predicted seconds of host, device and gap.
    """
    iterations = joined([iterations_of(run) for run in runs])
    told = told_of(cost, iterations)
    predicted = told.device
    if isinstance(cost, PartedCost):
        predicted = iterations.added(told.host, told.device, told.gap)
    return {
        **error_figures(predicted, iterations.period),
        "by_kind": _with_shares(predicted, iterations),
        "by_size": _by_size(predicted, iterations),
        "parts": _parts(told, iterations),
    }


def _with_shares(predicted: Floats, iterations: Iterations) -> Figures:
    found = by_kind(predicted, iterations)
    kind = iterations.kind
    return {
        name: figures | {"share": _share(predicted, iterations.period, kind == place)}
        for place, (name, figures) in enumerate(found.items())
    }


def _by_size(predicted: Floats, iterations: Iterations) -> list[Figures]:
    """Iterations of a kind with 1, 2 to 3, 4 to 7, … tokens each."""
    kind, measured, shapes = iterations.kind, iterations.period, iterations.shapes()
    tokens = np.array([shape.prefill_tokens + shape.decode_requests for shape in shapes])
    octave = np.frexp(np.maximum(tokens, 1.0))[1] - 1
    rows = []
    for place, name in enumerate(KINDS):
        for size in np.unique(octave[kind == place]).tolist():
            chosen = (kind == place) & (octave == size)
            rows.append(
                {
                    "kind": name,
                    "tokens": [int(tokens[chosen].min()), int(tokens[chosen].max())],
                    **error_figures(predicted[chosen], measured[chosen]),
                    "share": _share(predicted, measured, chosen),
                }
            )
    return rows


def _share(predicted: Floats, measured: Floats, chosen: Any) -> float | None:
    total = float(measured.sum())
    return float((predicted - measured)[chosen].sum()) / total if total > 0 else None


def _parts(told: Durations, iterations: Iterations) -> Figures:
    """Seconds in all; of a gap or a host time only where the run shows one that counts."""
    has_gap, has_host = ~np.isnan(iterations.gap), ~iterations.hidden
    sides = {
        "host": (iterations.host, told.host, has_host),
        "device": (iterations.device, told.device, np.ones(len(iterations), dtype=np.bool_)),
        "gap": (iterations.gap, told.gap, has_gap),
    }
    return {
        name: {"measured_s": float(there[rows].sum()), "predicted_s": float(here[rows].sum())}
        for name, (there, here, rows) in sides.items()
    }
