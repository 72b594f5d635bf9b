"""Errors request by request: how far each latency is off, beside how far repeats are apart."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from schedsim.experiments.validation.metrics import LEAST_BEYOND
from schedsim.results.quantiles import QUANTILES, Floats
from schedsim.results.stored_run import StoredRun, float_column

if TYPE_CHECKING:
    import pyarrow

COLUMNS = ("ttft_s", "tpot_s", "e2e_s")
_KEPT = ("status", "admitted", "first_token", "finished", *COLUMNS, "preemptions")

Figures = dict[str, float | int | None]


def request_errors(
    runs: Sequence[StoredRun], simulated: "pyarrow.Table"
) -> dict[str, dict[str, Figures | None]]:
    """Of each latency: `simulated` against the mean of the repeats, and `repeats`, of which each is
    held against the mean of the others; None for a single run.

    `requests` says how many have an error: neither side is unknown, nor was 0 measured.
    """
    found: dict[str, dict[str, Figures | None]] = {}
    for name in COLUMNS:
        measured = np.array([float_column(run.requests, name) for run in runs])
        repeats = None
        if len(runs) > 1:
            others = (measured.sum(axis=0) - measured) / (len(runs) - 1)
            repeats = _figures(_errors(measured, others).ravel())
        error = _errors(float_column(simulated, name), measured.mean(axis=0))
        found[name] = {"simulated": _figures(error), "repeats": repeats}
    return found


def requests_table(
    cells: Sequence[tuple[str, Sequence[StoredRun], "pyarrow.Table"]],
) -> "pyarrow.Table":
    """One row a request of each measured run, by cell, with what the simulation says of it."""
    import pyarrow as pa

    parts = []
    for name, runs, simulated in cells:
        for repeat, run in enumerate(runs, start=1):
            size = run.requests.num_rows
            table = {
                "cell": pa.array([name] * size),
                "repeat": np.full(size, repeat),
                "request": run.requests.column("request"),
                "arrival": run.requests.column("arrival"),
            }
            for column in _KEPT:
                table[f"measured_{column}"] = run.requests.column(column)
                table[f"simulated_{column}"] = simulated.column(column)
            parts.append(pa.table(table))
    return pa.concat_tables(parts)


def _errors(values: Floats, measured: Floats) -> Floats:
    """NaN where one is unknown or `measured` is 0."""
    errors: Floats = values / np.where(measured == 0.0, np.nan, measured) - 1
    return errors


def _figures(errors: Floats) -> Figures:
    """Of relative errors: the median as it is, to show a bias, and quantiles of their size."""
    errors = errors[~np.isnan(errors)]
    figures: Figures = {"requests": len(errors)}
    figures["bias"] = float(np.median(errors)) if len(errors) else None
    for name, q, _ in QUANTILES:
        told = len(errors) * (1 - q) >= LEAST_BEYOND - 1e-6
        figures[name] = float(np.quantile(np.abs(errors), q)) if told else None
    return figures
