"""`calibrate`: a `fitted` step-time model from the iterations of runs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from schedsim.costs.features import FEATURES, UNPADDED, Padding
from schedsim.costs.fitted_file import FittedFile
from schedsim.experiments.choosing import CONTEXT, WINDOW, choose, held_out_periods
from schedsim.experiments.counted import counted_iterations
from schedsim.experiments.device_speeds import on_one_footing
from schedsim.experiments.fitting import KNOTS, fit, fitted_periods
from schedsim.experiments.iterations import KINDS, Iterations, padding_of
from schedsim.experiments.least_squares import independent, inflation, require_scipy
from schedsim.experiments.provenance import provenance_of
from schedsim.experiments.regions import regions_of
from schedsim.experiments.scatter import kinds_without_noise, noise_of
from schedsim.results.stored_run import StoredRun

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Figures = dict[str, float | int | None]

_DEPENDENT = 1e-3
_HARD_TO_TELL = 100.0


@dataclass(frozen=True, slots=True, eq=False)
class Calibration:
    """The file, and the iterations that it was fitted to with the seconds that it gives them."""

    file: FittedFile
    iterations: Iterations
    fitted: Floats


def calibrate(runs: Sequence[StoredRun]) -> Calibration:
    """Fit host, device and gap times of the runs' iterations, all runs together.

    Of a run of designed batches those count that its design says. How much neighbouring pieces of a
    curve want one slope and how the device slows down under load is chosen by the error on sizes
    that were held out. Where runs are of several devices of one kind, the fit is of their mean.
    Deterministic.

    Raises:
        ConfigError: runs of different models, devices or block sizes, or the same run twice; or
            scipy is not installed.
        ResultError: too few iterations, or none that took time; steps without the columns that it
            takes; designed batches without the file that says what counts.
    """
    require_scipy()
    seen = counted_iterations(runs)
    rate = seen.rates(WINDOW, CONTEXT)
    iterations, relative = on_one_footing(seen.iterations, seen.device, rate)
    choice = choose(iterations, rate)
    held_out = held_out_periods(iterations, choice)
    parts = fit(iterations, choice.straight, choice.factor)
    fitted = fitted_periods(parts, iterations, choice.factor)
    noise = noise_of(fitted, iterations)
    padding = padding_of(runs[0])
    file = FittedFile(
        parts=parts,
        padding=padding,
        throttle=choice.throttle,
        ranges={
            name: (float(column.min()), float(column.max()))
            for name, column in iterations.terms.items()
        },
        steps=len(iterations),
        provenance={
            **provenance_of(runs, seen.counts),
            "relative_times": _by_device(seen.devices, relative),
        },
        residuals={
            "in_sample": error_figures(fitted, iterations.period),
            "cross_validated": None
            if held_out is None
            else error_figures(held_out, iterations.period),
            "by_kind": by_kind(fitted, iterations),
            "by_region": _by_region(fitted, held_out, iterations),
            "time_shares": _time_shares(iterations),
            "straight": choice.straight,
        },
        noise=noise,
        warnings=[*_warnings(iterations, padding), *kinds_without_noise(noise, iterations)],
    )
    return Calibration(file, iterations, fitted)


def error_figures(fitted: Floats, measured: Floats) -> Figures:
    """Of iterations: how many, median and 90th percentile of |fitted / measured - 1|, and the error
    of their total time, None where that is 0."""
    if not len(measured):
        return {"iterations": 0, "median": None, "p90": None, "total": None}
    size = np.abs(fitted - measured) / _positive(measured)
    return {
        "iterations": len(measured),
        "median": float(np.median(size)),
        "p90": float(np.quantile(size, 0.9)),
        "total": float(fitted.sum() / measured.sum() - 1) if measured.any() else None,
    }


def by_kind(fitted: Floats, iterations: Iterations) -> dict[str, Figures]:
    """`error_figures` of the iterations of each of `KINDS`."""
    kind, measured = iterations.kind, iterations.period
    return {
        name: error_figures(fitted[kind == place], measured[kind == place])
        for place, name in enumerate(KINDS)
    }


def _by_device(devices: Sequence[str | None], relative: Floats) -> dict[str, float] | None:
    """What each device takes of the time of their mean; None where there is but one."""
    if len(devices) == 1:
        return None
    pairs = zip(devices, relative.tolist(), strict=True)
    return {str(uuid): float(f"{value:.4g}") for uuid, value in pairs}


def _positive(seconds: Floats) -> Floats:
    return np.maximum(seconds, 1e-12)


def _by_region(
    fitted: Floats, held_out: Floats | None, iterations: Iterations
) -> dict[str, dict[str, Any]]:
    names = np.array(regions_of(iterations))
    measured = iterations.period
    return {
        str(name): {
            **error_figures(fitted[names == name], measured[names == name]),
            "held_out": None
            if held_out is None
            else error_figures(held_out[names == name], measured[names == name]),
        }
        for name in np.unique(names)
    }


def _time_shares(iterations: Iterations) -> dict[str, float]:
    total = float(iterations.period.sum())
    host = np.where(iterations.hidden, 0.0, iterations.host)
    named = (("host", host), ("device", iterations.device), ("gap", iterations.gap))
    return {name: float(np.nansum(seconds)) / max(total, 1e-12) for name, seconds in named}


def _warnings(iterations: Iterations, padding: Padding) -> list[str]:
    """What the iterations cannot tell: features that never occur or go together with others."""
    by_rule = ["tiles"] if padding.attended else ["tiles", "prefill_span"]
    if padding == UNPADDED:
        by_rule += ["tokens", "launched"]
    names = [name for name in KNOTS if name not in by_rule]
    columns = {name: iterations.terms[name] / _positive(iterations.period) for name in names}
    columns = {"base": 1 / _positive(iterations.period), **columns}
    places = independent(np.column_stack(list(columns.values())), _DEPENDENT)
    kept = [list(columns)[place] for place in places]
    ordered = [name for name in FEATURES if name in names]
    never = [name for name in ordered if not columns[name].any()]
    merged = [name for name in ordered if name not in kept and name not in never]
    found = []
    if never:
        found.append(f"never seen in these runs, so taken to cost nothing: {', '.join(never)}")
    if merged:
        found.append(
            f"always in step with other terms, which carry its cost: {', '.join(merged)}; runs of "
            "another mix of lengths can tell them apart"
        )
    matrix = np.column_stack([columns[name] for name in kept])
    unit = matrix / np.linalg.norm(matrix, axis=0)
    likeness = np.abs(unit.T @ unit) - np.eye(len(kept))
    pairs = set()
    for place, factor in enumerate(inflation(matrix)):
        if factor > _HARD_TO_TELL:
            pairs.add(tuple(sorted((place, int(likeness[place].argmax())))))
    found += [
        f"hard to tell apart in these runs: {kept[one]} and {kept[other]}; their sum is better "
        "known than either"
        for one, other in sorted(pairs)
    ]
    return found
