"""The report on single runs: each is read, told in few numbers, and let go."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schedsim.experiments.arms import Measured
from schedsim.experiments.validation.metrics import METRICS
from schedsim.report import figures
from schedsim.report.content import Report, Section, Table
from schedsim.report.figures import Figure
from schedsim.report.series import (
    Points,
    cdf_points,
    memory_points,
    quantile_pairs,
    tenant_points,
    time_points,
)
from schedsim.report.threats import threats_of_runs
from schedsim.results.labels import LABELS
from schedsim.results.stored_run import StoredRun, float_column, load_run, step_ends
from schedsim.results.table import format_figure, look_up, table_rows

LATENCIES = {
    "ttft_s": ("ttft", "Time to first token", "TTFT (s)"),
    "tpot_s": ("tpot", "Time per output token", "TPOT (s)"),
    "e2e_s": ("e2e", "End-to-end latency", "end to end (s)"),
}
TIMES = {
    "running": "Running requests",
    "waiting": "Waiting requests",
    "held": "KV blocks held",
}


@dataclass(slots=True)
class _Told:
    """Runs in few numbers, by name."""

    manifests: dict[str, dict[str, Any]] = field(default_factory=dict)
    summaries: dict[str, dict[str, Any]] = field(default_factory=dict)
    loads: dict[str, Measured] = field(default_factory=dict)
    cdfs: dict[str, Points] = field(default_factory=lambda: {name: [] for name in LATENCIES})
    times: Points = field(default_factory=list)
    memory: Points = field(default_factory=list)
    tenants: Points = field(default_factory=list)

    def add(self, name: str, run: StoredRun) -> None:
        """Tell one more run."""
        self.manifests[name], self.summaries[name] = run.manifest, run.summary
        requests = run.requests
        self.loads[name] = Measured.of(run.manifest["config"], run.summary, requests)
        for column, points in self.cdfs.items():
            points += cdf_points(name, self.loads[name].columns[column])
        self.times += points_over_time(name, run)
        self.memory += memory_points(name, run.summary["memory"])
        self.tenants += tenant_points(
            name,
            requests["tenant"].to_numpy(),
            self.loads[name].columns["ttft_s"],
            float_column(requests, "output_tokens"),
        )


def points_over_time(name: str, run: StoredRun) -> Points:
    """Each of `TIMES` over the time of a run."""
    steps = run.steps
    blocks = int(run.manifest["config"]["resolved"]["num_blocks"])
    columns = {
        "running": float_column(steps, "running"),
        "waiting": float_column(steps, "waiting"),
        "held": 1.0 - float_column(steps, "free_blocks") / blocks,
    }
    return time_points(name, float_column(steps, "start"), step_ends(steps), columns)


def report_on_runs(
    runs: Mapping[str, Path], differences: Sequence[Table], title: str | None
) -> Report:
    """The report on the runs in these directories, by the names that it gives them.

    Raises:
        ResultError: a run cannot be read.
    """
    told = _Told()
    for name, path in runs.items():
        told.add(name, load_run(path))
    names = list(runs)
    summaries = list(told.summaries.values())
    config = next(iter(told.manifests.values()))["config"]
    served = ", ".join(dict.fromkeys(str(m["trace"]["name"]) for m in told.manifests.values()))
    sections = [
        Section("Summary", [Table(["whole run", *names], table_rows(summaries))]),
        Section("Differences", differences),
        Section("Latency", figures=_latencies(told, names)),
        Section("Over time", figures=_times(told, names)),
        Section("Memory", figures=[figures.memory(told.memory, names)] if told.memory else []),
        Section("Tenants", figures=[figures.tenants(told.tenants, names)] if told.tenants else []),
        *_against_measured(told),
        Section("Threats to validity", points=threats_of_runs(told.manifests, told.summaries)),
    ]
    return Report(
        title or " · ".join(names),
        f"{served} · {config['model']} · {_device(told)}",
        [section for section in sections if not section.is_empty],
    )


def _latencies(told: _Told, names: Sequence[str]) -> list[Figure]:
    return [
        figures.cdf(name, title, axis, told.cdfs[column], names)
        for column, (name, title, axis) in LATENCIES.items()
        if told.cdfs[column]
    ]


def _times(told: _Told, names: Sequence[str]) -> list[Figure]:
    if not told.times:
        return []
    return [
        figures.over_time(column, title, column, told.times, names)
        for column, title in TIMES.items()
    ]


def _device(told: _Told) -> str:
    kinds = []
    for manifest in told.manifests.values():
        config = manifest["config"]
        if "execution" in manifest:
            kinds.append(str(manifest["device"]))
        elif config["step_time"] == "roofline":
            kinds.append(f"simulated {config['gpu']}")
        else:
            kinds.append("simulated")
    return ", ".join(dict.fromkeys(kinds))


def _against_measured(told: _Told) -> list[Section]:
    """A section for each simulation of a load that a measured run served, too."""
    measured = [name for name, manifest in told.manifests.items() if "execution" in manifest]
    simulated = [name for name in told.manifests if name not in measured]
    sections = []
    for there in measured:
        for here in simulated:
            a, b = told.loads[there], told.loads[here]
            if not a.same_load(b):
                continue
            points = [
                point
                for column, (_, _, axis) in LATENCIES.items()
                for point in quantile_pairs(
                    axis.partition(" (")[0], a.columns[column], b.columns[column]
                )
            ]
            name = f"simulated-{simulated.index(here)}-{measured.index(there)}"
            title = f"{here} against {there}"
            rows = _errors(told.summaries[there], told.summaries[here])
            table = Table(["whole run", "measured", "simulated", "error"], rows)
            sections.append(
                Section(
                    f"Simulated against measured: {title}",
                    [table],
                    [figures.against_measured(name, title, points)] if points else [],
                )
            )
    return sections


def _errors(measured: dict[str, Any], simulated: dict[str, Any]) -> list[list[str]]:
    rows = []
    for name, path in METRICS.items():
        true, said = look_up(measured, path), look_up(simulated, path)
        error = "-" if not true or said is None else f"{100 * (said / true - 1):+.2f} %"
        label, unit = LABELS[name]
        rows.append([label, format_figure(true, unit), format_figure(said, unit), error])
    return rows
