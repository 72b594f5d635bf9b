"""`schedsim calibrate`: a step-time model from runs that were measured."""

from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from schedsim.cli.console import stdout_console
from schedsim.cli.errors import user_errors
from schedsim.cli.output_file import Force, check_file
from schedsim.cli.side_by_side import note
from schedsim.cli.working import working
from schedsim.costs.fitted import TERMS, FittedFile
from schedsim.errors import ConfigError
from schedsim.experiments.calibration import calibrate as fit_runs
from schedsim.results.directory import write_whole
from schedsim.results.stored_run import load_run

EXAMPLES = """\
Examples:

schedsim calibrate --from measured --out cpu.json

schedsim calibrate --from light --from heavy --out h100.json

schedsim run trace.csv --step-time fitted:h100.json
"""


@user_errors()
def calibrate(
    out: Annotated[Path, typer.Option(help="JSON file for  --step-time fitted:FILE.")],
    runs: Annotated[
        list[Path] | None,
        typer.Option("--from", help="Directory of a finished run; may stand several times."),
    ] = None,
    force: Force = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the file's content.")] = False,
) -> None:
    """Fit a step-time model to the iterations of runs, and say how well it fits."""
    if not runs:
        raise ConfigError(
            "name the runs to fit with --from RUN_DIR, the --out of a `schedsim execute`"
        )
    check_file(out, force)
    with working("fitting"):
        fitted = fit_runs([load_run(run) for run in runs])
    text = fitted.model_dump_json(indent=2) + "\n"
    write_whole(out, text)
    if as_json:
        typer.echo(text, nl=False)
    else:
        stdout_console().print(coefficients_table(fitted))
        stdout_console().print(residuals_table(fitted))
    for warning in fitted.warnings:
        note(warning)
    note(f"wrote {out}; use it with  --step-time fitted:{out}")


def coefficients_table(fitted: FittedFile) -> Table:
    """Microseconds for each unit, by term and part."""
    shares = fitted.residuals["time_shares"]
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("µs for each")
    parts = ("host", "device", "gap")
    for name in parts:
        table.add_column(name, justify="right")
    table.add_column("range in the runs", justify="right")
    for term in TERMS:
        values = [1e6 * getattr(getattr(fitted.parts, part), term) for part in parts]
        low, high = fitted.ranges.get(term, (0.0, 0.0))
        span = "" if term == "base" else f"{low:,.0f} to {high:,.0f}"
        cells = [f"{value:,.4g}" if value else "-" for value in values]
        table.add_row("iteration" if term == "base" else term, *cells, span)
    table.add_row("share of the time", *(percent(shares[part]) for part in parts), "")
    return table


def residuals_table(fitted: FittedFile) -> Table:
    """How far the fit is off, over all iterations, on held-out ones, and by kind."""
    residuals = fitted.residuals
    rows = {"all": residuals["in_sample"], "held out": residuals["cross_validated"]}
    rows |= {f"{kind} only": figures for kind, figures in residuals["by_kind"].items()}
    rows["mixed"] = rows.pop("mixed only")
    return errors_table("error of an iteration", rows)


def errors_table(title: str, rows: dict[str, dict[str, Any] | None]) -> Table:
    """Figures of `error_figures`; rows without iterations are left out."""
    table = Table(show_edge=False, pad_edge=False)
    table.add_column(title)
    for name in ("iterations", "median", "p90", "total"):
        table.add_column(name, justify="right")
    for label, figures in rows.items():
        if figures is not None and figures["iterations"]:
            sizes = [percent(figures[name]) for name in ("median", "p90")]
            table.add_row(
                label, f"{figures['iterations']:,}", *sizes, percent(figures["total"], signed=True)
            )
    return table


def percent(share: float | None, signed: bool = False) -> str:
    """A share as text; a dash for none."""
    if share is None:
        return "-"
    return f"{100 * share:+.2f} %" if signed else f"{100 * share:.2f} %"
