"""`calibrate`: a `fitted` step-time model from the iterations of runs."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from schedsim.costs.fitted import COUNTS, TERMS, Coefficients, FittedFile, Parts
from schedsim.errors import ConfigError, ResultError
from schedsim.experiments.iterations import KINDS, Iterations, iterations_of, joined
from schedsim.experiments.least_squares import independent, inflation, robust_nonnegative
from schedsim.results.stored_run import StoredRun

Floats = npt.NDArray[np.float64]

LEAST_ITERATIONS = 20
FOLDS = 5

_PRIORITY = (
    "base",
    "decode_requests",
    "prefill_tokens",
    "decode_context",
    "prefill_attention",
    "prefill_requests",
    "swapped_blocks",
    "copied_blocks",
    "sampled",
)
"""The terms in the order in which they are believed: of terms that always go together in the runs,
the first keeps the cost of all."""

_DEPENDENT = 1e-3
_HARD_TO_TELL = 100.0
_DIGITS = 9


def calibrate(runs: Sequence[StoredRun]) -> FittedFile:
    """Fit host, device and gap times of the runs' iterations, all runs together.

    Each part is a sum of `TERMS` with coefficients that are not negative, fitted to least relative
    error of the whole iteration, outliers held down. Deterministic.

    Raises:
        ConfigError: runs of different models, devices or block sizes, or the same run twice.
        ResultError: too few iterations, or steps without the columns that it takes.
    """
    _check_alike(runs)
    each = [iterations_of(run) for run in runs]
    iterations = joined(each)
    if len(iterations) < LEAST_ITERATIONS:
        raise ResultError(
            f"{', '.join(str(run.path) for run in runs)}: {len(iterations)} iterations are too few "
            f"for a fit; give runs with at least {LEAST_ITERATIONS} together"
        )
    parts = fit(iterations)
    fitted = fitted_periods(parts, iterations)
    counts = iterations.counts
    return FittedFile(
        parts=parts,
        ranges={
            name: (float(counts[:, place].min()), float(counts[:, place].max()))
            for place, name in enumerate(COUNTS)
        },
        steps=len(iterations),
        provenance=_provenance(runs, each),
        residuals={
            "in_sample": error_figures(fitted, iterations.period),
            "cross_validated": _cross_validated(iterations),
            "by_kind": by_kind(fitted, iterations),
            "time_shares": _time_shares(iterations),
        },
        warnings=_warnings(iterations),
    )


def fit(iterations: Iterations) -> Parts:
    """The coefficients that fit best; errors count relative to the fitted whole of an iteration."""
    design, period = iterations.terms, iterations.period
    least = max(1e-3 * float(np.median(period)), 1e-12)

    def part(target: Floats, rows: npt.NDArray[np.bool_], scale: Floats | None) -> Coefficients:
        """Terms are chosen on the rows at hand: those left out may have told two of them apart."""
        if not rows.any():
            return Coefficients()
        matrix = np.column_stack([design[name][rows] for name in _PRIORITY])
        unit = np.maximum(period if scale is None else scale, least)[rows]
        places = independent(matrix / unit[:, None], _DEPENDENT)
        own = None if scale is None else unit
        values = robust_nonnegative(matrix[:, places], target[rows], own).tolist()
        named = zip([_PRIORITY[place] for place in places], values, strict=True)
        return Coefficients(**{name: float(f"{value:.{_DIGITS}g}") for name, value in named})

    everywhere = np.ones(len(iterations), dtype=np.bool_)
    scale = _seconds(part(period, everywhere, None), iterations)
    return Parts(
        host=part(iterations.host, ~np.isnan(iterations.host), scale),
        device=part(iterations.device, everywhere, scale),
        gap=part(iterations.gap, ~np.isnan(iterations.gap), scale),
    )


def _seconds(coefficients: Coefficients, iterations: Iterations) -> Floats:
    terms = iterations.terms.items()
    return sum((getattr(coefficients, name) * column for name, column in terms), np.zeros(1))


def fitted_periods(parts: Parts, iterations: Iterations) -> Floats:
    """Seconds that each iteration adds by the fit; no gap where none was measured."""
    host, device, gap = (
        _seconds(part, iterations) for part in (parts.host, parts.device, parts.gap)
    )
    return iterations.added(host, device, gap)


def error_figures(fitted: Floats, measured: Floats) -> dict[str, float | int | None]:
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


def by_kind(fitted: Floats, iterations: Iterations) -> dict[str, dict[str, float | int | None]]:
    """`error_figures` of prefill, decode and mixed iterations apart."""
    kind, measured = iterations.kind, iterations.period
    return {
        name: error_figures(fitted[kind == place], measured[kind == place])
        for place, name in enumerate(KINDS)
    }


def _positive(seconds: Floats) -> Floats:
    return np.maximum(seconds, 1e-12)


def _cross_validated(iterations: Iterations) -> dict[str, float | int | None] | None:
    """Errors on each fifth of the iterations, in a row, of a fit to the others; None for few."""
    size = len(iterations)
    if size < FOLDS * LEAST_ITERATIONS:
        return None
    fold = np.arange(size) * FOLDS // size
    fitted = [
        fitted_periods(fit(iterations.take(fold != held_out)), iterations.take(fold == held_out))
        for held_out in range(FOLDS)
    ]
    return error_figures(np.concatenate(fitted), iterations.period)


def _time_shares(iterations: Iterations) -> dict[str, float]:
    total = float(iterations.period.sum())
    host = np.where(iterations.hidden, 0.0, iterations.host)
    named = (("host", host), ("device", iterations.device), ("gap", iterations.gap))
    return {name: float(np.nansum(seconds)) / max(total, 1e-12) for name, seconds in named}


def _warnings(iterations: Iterations) -> list[str]:
    design = iterations.terms
    weighted = {name: column / _positive(iterations.period) for name, column in design.items()}
    places = independent(np.column_stack([weighted[name] for name in _PRIORITY]), _DEPENDENT)
    kept = [_PRIORITY[place] for place in places]
    never = [name for name in COUNTS if not design[name].any()]
    merged = [name for name in TERMS if name not in kept and name not in never]
    found = []
    if never:
        found.append(f"never seen in these runs, so taken to cost nothing: {', '.join(never)}")
    if merged:
        found.append(
            f"always in step with other terms, which carry its cost: {', '.join(merged)}; runs of "
            "another mix of lengths can tell them apart"
        )
    matrix = np.column_stack([weighted[name] for name in kept])
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


def _check_alike(runs: Sequence[StoredRun]) -> None:
    first = _machine(runs[0])
    for run in runs[1:]:
        for name, value in _machine(run).items():
            if value != first[name]:
                raise ConfigError(
                    f"{runs[0].path} and {run.path} differ in {name} ({first[name]!r} and "
                    f"{value!r}): calibrate each on its own"
                )
    for place, run in enumerate(runs):
        for other in runs[:place]:
            if run.steps_sha256 == other.steps_sha256:
                raise ConfigError(
                    f"{other.path} and {run.path} hold the same iterations, which would count "
                    "twice: give each run once"
                )


def _machine(run: StoredRun) -> dict[str, Any]:
    """What must be equal for iterations to take equally long."""
    config, execution = run.manifest["config"], run.manifest.get("execution") or {}
    on_gpu = str(execution.get("device")).startswith("cuda")
    return {
        "device": run.manifest.get("device"),
        "model": config.get("model"),
        "tensor_parallel": config.get("tensor_parallel"),
        "dtype": execution.get("dtype"),
        "attention": execution.get("attention"),
        "threads": None if on_gpu else execution.get("threads"),
        "block_size": config.get("resolved", {}).get("block_size"),
    }


def _provenance(runs: Sequence[StoredRun], each: Sequence[Iterations]) -> dict[str, Any]:
    return {
        **_machine(runs[0]),
        "versions": runs[0].manifest.get("versions"),
        "runs": [
            {
                "command": run.manifest.get("command"),
                "policy": run.manifest["config"].get("policy"),
                "trace": run.manifest["trace"].get("name"),
                "trace_sha256": run.manifest["trace"].get("sha256"),
                "steps_sha256": run.steps_sha256,
                "finished_at": run.manifest.get("finished_at"),
                "iterations": len(iterations),
            }
            for run, iterations in zip(runs, each, strict=True)
        ],
    }
