"""The report on a sweep: curves over its rates, a series for each of the other settings."""

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import numpy as np

from schedsim.experiments.intervals import Values
from schedsim.report import figures
from schedsim.report.content import Report, Section, Table
from schedsim.report.figures import Figure
from schedsim.report.series import Points
from schedsim.report.threats import threats_of_sweep
from schedsim.results.table import format_figure
from schedsim.sweep.rows import Row

RATES = ("rate_scale", "arrivals.rate", "concurrency")
"""Settings that say how much comes, in the order in which one is taken for the axis."""

MOST_ROWS = 100
LEVEL = 0.05

FIGURES = (
    ("throughput.whole.requests_per_s", "requests/s", "rate"),
    ("throughput.whole.output_tokens_per_s", "output tokens/s", "rate"),
    ("latency.whole.ttft_s.p99", "TTFT p99 (s)", "seconds"),
    ("latency.whole.tpot_s.mean", "TPOT mean (ms)", "milliseconds"),
    ("latency.whole.e2e_s.mean", "end to end mean (s)", "seconds"),
    ("goodput.whole.share", "goodput (share)", "share"),
    ("preemptions", "preemptions", "count"),
    ("stable", "stable", "verdict"),
)
LATENCIES = (
    ("latency.whole.ttft_s.p99", "ttft-throughput", "TTFT p99 (s)"),
    ("latency.whole.tpot_s.mean", "tpot-throughput", "TPOT mean (s)"),
    ("latency.whole.e2e_s.mean", "e2e-throughput", "end to end mean (s)"),
)
UNITS = {"rate_scale": "rate scale (×)", "arrivals.rate": "arrivals (requests/s)"}
SHARE, GOOD = "goodput.whole.share", "goodput.whole.requests_per_s"
THROUGHPUT = "throughput.whole.requests_per_s"


def report_on_sweep(
    rows: Sequence[Row], names: Sequence[str], searched: str | None, title: str
) -> Report:
    """The report on the rows of a sweep; `names` are the settings in which they differ."""
    good = [row for row in rows if row["error"] is None]
    at = searched or next((name for name in (*RATES, *names) if _is_axis(name, names, good)), None)
    told = [name for name in names if name not in ("seed", at)]
    sections = [
        Section("Capacity", figures=_capacities(good, told, searched)),
        Section("Throughput and latency", figures=_latencies(good, told, at)),
        Section("Goodput", figures=_goodput(good, told, at)),
        Section("Runs", [_table(rows, [*names, *([searched] if searched else [])])]),
        Section("Threats to validity", points=threats_of_sweep(rows)),
    ]
    traces = ", ".join(dict.fromkeys(str(row["trace"]) for row in rows))
    models = ", ".join(dict.fromkeys(f"{row['model']} · simulated {row['gpu']}" for row in rows))
    return Report(
        title,
        f"{len(rows)} runs · {traces} · {models}",
        [section for section in sections if not section.is_empty],
    )


def _is_axis(name: str, names: Sequence[str], rows: Sequence[Row]) -> bool:
    values = {row.get(name) for row in rows}
    return (
        name in names
        and name != "seed"
        and len(values) > 1
        and all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    )


def series_of(row: Row, names: Sequence[str]) -> str:
    """What a series is called: the settings in which it differs from others."""
    parts = []
    for name in names:
        value = row.get(name)
        if name == "policy" or value is None:
            continue
        if name.startswith("policy.") and "policy" in names:
            continue  # the policy's own words say it
        parts.append(f"{name}={value:g}" if isinstance(value, float) else f"{name}={value}")
    if "policy" in names or not parts:
        parts.insert(0, str(row["policy"]))
    return ", ".join(parts)


def _curve_points(rows: Sequence[Row], told: Sequence[str], at: str, x: str, y: str) -> Points:
    """Means over the seeds, with intervals where there are several."""
    groups: dict[tuple[str, float], list[Row]] = defaultdict(list)
    for row in rows:
        if row.get(x) is not None and row.get(y) is not None:
            groups[series_of(row, told), float(row[at])].append(row)
    points: Points = []
    for (series, value), group in groups.items():
        figures_y = np.array([float(row[y]) for row in group])
        point: dict[str, Any] = {
            "series": series,
            "at": value,
            "x": float(np.mean([float(row[x]) for row in group])),
            "y": float(figures_y.mean()),
        }
        if len(group) > 1:
            half = Values.of_mean(figures_y).estimate.half_width(LEVEL)
            point |= {"low": point["y"] - half, "high": point["y"] + half}
        points.append(point)
    return points


def _latencies(rows: Sequence[Row], told: Sequence[str], at: str | None) -> list[Figure]:
    if at is None:
        return []
    found = []
    for column, name, axis in LATENCIES:
        points = _curve_points(rows, told, at, THROUGHPUT, column)
        if points:
            title = f"{axis[0].upper()}{axis.partition(' (')[0][1:]} over throughput"
            axes = "throughput (requests/s)", axis
            found.append(figures.curve(name, title, points, axes, is_latency=True))
    return found


def _goodput(rows: Sequence[Row], told: Sequence[str], at: str | None) -> list[Figure]:
    if at is None:
        return []
    found = []
    for column, name, axis in (
        (SHARE, "goodput-share", "requests that met their objectives"),
        (GOOD, "goodput-rate", "goodput (requests/s)"),
    ):
        points = _curve_points(rows, told, at, at, column)
        if points:
            axes = UNITS.get(at, at), axis
            title = "Goodput, share" if column == SHARE else "Goodput, rate"
            found.append(figures.curve(name, title, points, axes, is_share=column == SHARE))
    return found


def _capacities(rows: Sequence[Row], told: Sequence[str], searched: str | None) -> list[Figure]:
    if searched is None:
        return []
    found: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        if row.get("is_capacity"):
            found[series_of(row, told)].append(float(row[searched]))
    points = [{"series": name, "y": float(np.mean(values))} for name, values in found.items()]
    axis = f"highest {UNITS.get(searched, searched)}"
    return [figures.capacity_bars("Capacity", axis, points)] if points else []


def _table(rows: Sequence[Row], names: Sequence[str]) -> Table:
    shown = [f for f in FIGURES if any(row.get(f[0]) is not None for row in rows)]
    cells = [
        [
            *(_text(row.get(name)) for name in names),
            *(format_figure(row.get(column), unit) for column, _, unit in shown),
        ]
        for row in rows[:MOST_ROWS]
    ]
    left = len(rows) - len(cells)
    return Table(
        [*names, *(label for _, label, _ in shown)],
        cells,
        f"The first {MOST_ROWS} of {len(rows)} runs; runs.parquet has all." if left else "",
    )


def _text(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)
