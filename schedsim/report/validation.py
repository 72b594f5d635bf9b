"""A validation as a page: its tables, and measured and simulated runs over each other."""

from schedsim.experiments.arms import Measured
from schedsim.experiments.validation.cell_validation import CellValidation
from schedsim.experiments.validation.validating import Validation
from schedsim.report import figures
from schedsim.report.content import Report, Section
from schedsim.report.figures import Figure
from schedsim.report.runs import LATENCIES, TIMES, points_over_time
from schedsim.report.series import Points, cdf_points, quantile_pairs
from schedsim.report.validation_tables import (
    choice_table,
    rate_sentences,
    sentences_of,
    tables_of,
)
from schedsim.results.stored_run import StoredRun

SIMULATED = "simulated"


def report_on_validation(validation: Validation) -> Report:
    """The report on everything that `validate` found."""
    sections = []
    for number, found in enumerate(validation.cells):
        title = f"{found.cell.name}: {len(found.cell.runs)} measured"
        sections.append(
            Section(title, tables_of(found), overlays(found, number), sentences_of(found))
        )
    choice = choice_table(validation)
    if choice is not None:
        sections.append(Section("Choice of a policy", [choice]))
    rates = rate_sentences(validation)
    if rates:
        sections.append(Section("Rates", points=rates))
    sections.append(Section("Threats to validity", points=threats_of(validation)))
    first = validation.cells[0].cell.runs[0].manifest
    device = first.get("device")
    return Report(
        "Simulated against measured",
        f"{first['trace']['name']} · {first['config']['model']} · {device}",
        sections,
    )


def overlays(found: CellValidation, number: int = 0) -> list[Figure]:
    """Distributions of latencies and quantities over time, measured and simulated in one plane.

    `number` tells the figures of several cells apart.
    """
    sides = _sides(found)
    names = list(sides)
    loads = {
        name: Measured.of(run.manifest["config"], run.summary, run.requests)
        for name, run in sides.items()
    }
    drawn: list[Figure] = []
    pairs: Points = []
    for column, (short, title, axis) in LATENCIES.items():
        points = [
            point
            for name, load in loads.items()
            for point in cdf_points(name, load.columns[column])
        ]
        if points:
            drawn.append(figures.cdf(f"{short}-{number}", title, axis, points, names))
        measured, simulated = (loads[n].columns[column] for n in (names[0], SIMULATED))
        pairs += quantile_pairs(axis.partition(" (")[0], measured, simulated)
    times = [point for name, run in sides.items() for point in points_over_time(name, run)]
    drawn += [
        figures.over_time(f"{column}-{number}", title, column, times, names)
        for column, title in TIMES.items()
    ]
    if pairs:
        title = f"Percentiles, {SIMULATED} against {names[0]}"
        drawn.append(figures.against_measured(f"percentiles-{number}", title, pairs))
    return drawn


def threats_of(validation: Validation) -> list[str]:
    """What is known against believing it; docs/validate.md says more on each."""
    told = []
    for found in validation.cells:
        name, first = found.cell.name, found.cell.runs[0]
        if found.seen is not None:
            told.append(f"{name}: IN-SAMPLE, the calibration saw this {found.seen}.")
        if len(found.cell.runs) == 1:
            told.append(f"{name} was measured once: nobody knows how far two runs differ.")
        if first.summary["stable"] is False:
            told.append(
                f"{name} is overloaded: its latencies grow with the length of the trace; what "
                "tells of the engine is its capacity."
            )
    executions = [found.cell.runs[0].execution for found in validation.cells]
    if any(str(execution.get("weights")).startswith("random") for execution in executions):
        told.append("Weights are random: shapes and kernels are a model's, what it says is not.")
    told.append(
        "Output lengths are the trace's, on both sides; a real engine stops where it likes."
    )
    devices = {str(found.cell.runs[0].manifest.get("device")) for found in validation.cells}
    machines = "one machine" if len(devices) == 1 else f"{len(devices)} machines, one of a kind"
    told.append(f"All of it is from {machines}: {', '.join(sorted(devices))}.")
    if any(found.cell.settings.concurrency is None for found in validation.cells):
        told.append("Requests come at their times however slow the engine is: no client gives up.")
    return told


def _sides(found: CellValidation) -> dict[str, StoredRun]:
    measured = {f"measured {i}": run for i, run in enumerate(found.cell.runs, start=1)}
    return {**measured, SIMULATED: found.simulated}
