"""`schedsim report`: runs or a sweep as one HTML file."""

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from schedsim.cli.compare import comparison_headings, comparison_rows, method_in_words
from schedsim.cli.errors import user_errors
from schedsim.cli.output_file import Force, check_file
from schedsim.cli.side_by_side import note
from schedsim.cli.working import working
from schedsim.errors import ConfigError
from schedsim.experiments.arms import find_runs, load_arms
from schedsim.experiments.comparison import Comparison, compare
from schedsim.report.content import Report, Table
from schedsim.report.export import export_figures
from schedsim.report.figures import check_installed
from schedsim.report.page import render_page
from schedsim.report.runs import report_on_runs
from schedsim.report.sweeps import report_on_sweep
from schedsim.results.directory import write_whole
from schedsim.sweep.config import SweepConfig
from schedsim.sweep.points import varied
from schedsim.sweep.store import is_sweep, load_sweep, stored_rows

MOST_RUNS = 12

EXAMPLES = """\
Examples:

schedsim run -q --limit 500 --policy vllm --policy sarathi --policy vllm-v0 --out results

schedsim report results  (writes report.html, which opens without a network)

schedsim report results/vllm results/sarathi --out two.html --figures figures  (SVG and PDF)
"""


@user_errors()
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(help="Run directories, folders of them, or a sweep.", metavar="RUN_DIR…"),
    ],
    out: Annotated[Path, typer.Option(help="The HTML file.")] = Path("report.html"),
    figures: Annotated[
        Path | None, typer.Option(help="Directory for the figures as SVG and PDF.")
    ] = None,
    title: Annotated[
        str | None, typer.Option(help="The heading; default: the names of the runs.")
    ] = None,
    force: Force = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes.")] = False,
) -> None:
    """Write a report on runs or on a sweep: one HTML file with everything in it."""
    check_installed()
    check_file(out, force)
    with nullcontext() if quiet else working(f"writing {out}"):
        made = _report(runs, title)
        write_whole(out, render_page(made))
        written = export_figures(made, figures) if figures is not None else []
    if not quiet:
        note(f"{out}: {out.stat().st_size / 1e6:.1f} MB, {len(made.figures)} figures")
        if written:
            note(f"{len(written)} files in {figures}")


def _report(paths: Sequence[Path], title: str | None) -> Report:
    sweeps = [path for path in paths if is_sweep(path)]
    if not sweeps:
        return _on_runs(paths, title)
    if len(paths) > 1:
        raise ConfigError(f"{sweeps[0]} is a sweep; give it alone, or give runs")
    told = load_sweep(sweeps[0])
    config = SweepConfig.model_validate(told["config"])
    rows = stored_rows(sweeps[0])
    if not rows:
        raise ConfigError(f"{sweeps[0]} holds no run yet; run the sweep first")
    searched = None if config.capacity is None else config.capacity.setting
    return report_on_sweep(rows, varied(config), searched, title or f"Sweep {sweeps[0].name}")


def _on_runs(paths: Sequence[Path], title: str | None) -> Report:
    found = find_runs(paths)
    if len(found) > MOST_RUNS:
        raise ConfigError(
            f"{len(found)} runs are too many for one report; name {MOST_RUNS} of them or fewer"
        )
    if len(found) == 1:
        return report_on_runs(found, [], title)
    comparison = compare(load_arms(paths))
    return report_on_runs(found, [_differences(comparison)], title)


def _differences(comparison: Comparison) -> Table:
    return Table(
        comparison_headings(comparison), comparison_rows(comparison), method_in_words(comparison)
    )
