"""What `schedsim calibrate` prints and remarks, of a fit and of a file that was adapted."""

from pathlib import Path

import typer

from schedsim.cli.calibration_tables import (
    adaptation_table,
    coefficients_table,
    regions_table,
    residuals_table,
)
from schedsim.cli.console import stdout_console
from schedsim.cli.side_by_side import note
from schedsim.costs.fitted_file import FittedFile
from schedsim.experiments.design_file import read_design
from schedsim.report.figures import is_installed


def print_fit(fitted: FittedFile) -> None:
    """Coefficients and errors of a fit."""
    console = stdout_console()
    console.print(coefficients_table(fitted))
    console.print(residuals_table(fitted))
    regions = regions_table(fitted)
    if regions is not None:
        console.print(regions)


def print_adapted(adapted: FittedFile, path: str) -> None:
    """What adapting the file `path` has changed."""
    stdout_console().print(adaptation_table(adapted))
    relative = adapted.provenance["adapted"]["relative_time"]
    typer.echo(f"this device takes {relative:.4f} times as long as that of {path}")


def remark_on_design(folder: Path, passes: int) -> None:
    """How much of its design the run in `folder` has measured, of `passes` at most."""
    design = read_design(folder)
    assert design is not None, "a run of designed batches has a design"
    whole = f"the design {design.passes} times" if design.passes else "not the whole design"
    bound = "--time-limit" if design.passes < passes else "--passes"
    note(
        f"measured {design.batches:,} batches, {whole} ({design.planned:,} batches); "
        f"more {bound} measures more"
    )
    if design.skipped:
        note(f"{design.skipped:,} batches found no room in the cache and were left out")


def remark_on_fit(fitted: FittedFile) -> None:
    """How its devices differed, and what its runs could not tell."""
    relative = fitted.provenance["relative_times"]
    if relative is not None:
        told = ", ".join(
            f"{uuid} takes {time:.4f} times as long" for uuid, time in relative.items()
        )
        note(f"fitted to the mean of {len(relative)} devices: {told}")
    for warning in fitted.warnings:
        note(warning)


def remark_on_files(out: Path, picture: Path | None) -> None:
    """What was written."""
    if picture is not None:
        if is_installed():
            note(f"drew {picture}")
        else:
            note("no picture: pip install 'schedsim[report]' brings what draws it")
    note(f"wrote {out}; use it with  --step-time fitted:{out}")
