"""What `schedsim validate` prints and writes."""

import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.table import Table as RichTable

from schedsim.cli.console import stdout_console
from schedsim.cli.diff import print_comparison
from schedsim.cli.side_by_side import note
from schedsim.costs import FittedCost
from schedsim.errors import SchedsimError
from schedsim.experiments.validation.request_errors import requests_table
from schedsim.experiments.validation.validating import Validation
from schedsim.report.content import Table
from schedsim.report.figures import is_installed
from schedsim.report.page import render_page
from schedsim.report.validation import report_on_validation
from schedsim.report.validation_tables import (
    choice_table,
    rate_sentences,
    sentences_of,
    tables_of,
)
from schedsim.results.directory import check_unused, write_parquet, write_whole


@contextmanager
def validation_folder(out: Path | None) -> Iterator[Path]:
    """Where all runs write: a new directory `out`, or one that goes away.

    `out` comes with the first run; what is in it when an error ends all is told.
    """
    if out is None:
        with tempfile.TemporaryDirectory(prefix="schedsim-") as scratch:
            yield Path(scratch)
        return
    check_unused(out)
    try:
        yield out
    except (SchedsimError, KeyboardInterrupt):
        kept = sorted(str(p.relative_to(out)) for p in out.glob("*/*") if p.is_dir())
        if kept:
            note(f"not validated; kept in {out}: {', '.join(kept)}")
        raise


def write_validation(validation: Validation, out: Path, quiet: bool) -> None:
    """Write the files of a validation into its directory.

    Raises:
        OutputError: one cannot be written.
    """
    cells = [(f.cell.name, f.cell.runs, f.simulated.requests) for f in validation.cells]
    write_parquet(out / "requests.parquet", requests_table(cells))
    content = json.dumps(validation.as_json(), indent=2, ensure_ascii=False)
    write_whole(out / "validation.json", content + "\n")
    if is_installed():
        write_whole(out / "validation.html", render_page(report_on_validation(validation)))
    elif not quiet:
        note("no validation.html: its figures need pip install 'schedsim[report]'")


def tell_validation(validation: Validation, as_json: bool, quiet: bool) -> None:
    """Print tables, or JSON, to stdout and notes to stderr."""
    if as_json:
        typer.echo(json.dumps(validation.as_json(), indent=2, ensure_ascii=False))
    else:
        _print(validation)
    if not quiet:
        for text in _notes(validation):
            note(text)


def _print(validation: Validation) -> None:
    console = stdout_console()
    for found in validation.cells:
        runs, requests = len(found.cell.runs), len(found.cell.trace)
        times = "once" if runs == 1 else f"{runs} times"
        typer.echo(f"== {found.cell.name}: {requests:,} requests, measured {times}")
        for text in sentences_of(found):
            typer.echo(text)
        for replay in found.replays:
            if not replay.same and replay.comparison is not None:
                print_comparison(replay.comparison)
        for table in tables_of(found):
            console.print(_rich(table))
    choice = choice_table(validation)
    if choice is not None:
        console.print(_rich(choice))
    for text in rate_sentences(validation):
        typer.echo(text)


def _rich(table: Table) -> RichTable:
    drawn = RichTable(show_edge=False, pad_edge=False)
    first, *others = table.headings
    drawn.add_column(first)
    for heading in others:
        drawn.add_column(heading, justify="right")
    for row in table.rows:
        drawn.add_row(*row)
    return drawn


def _notes(validation: Validation) -> Iterator[str]:
    for found in validation.cells:
        name, runs = found.cell.name, found.cell.runs
        if any(replay.compared == "sizes" for replay in found.replays):
            yield (
                f"{name}: a run has no decision record, so its replay was held to what its tables "
                "say; run it again with --decisions"
            )
        if len(runs) == 1:
            yield f"{name}: measured once, so that no spread is known and nothing can be judged"
        for text in found.outcome.notes:
            yield f"{name}: {text}"
        if isinstance(validation.cost, FittedCost):
            fitted_to = validation.cost.file.provenance
            for what, ran in found.cell.ran_on.items():
                known = fitted_to.get(what)
                if None not in (known, ran) and known != ran:
                    yield f"{name}: measured with {what} {ran}, and the step time with {known}"
        if found.seen is not None:
            yield (
                f"{name}: IN-SAMPLE: the calibration saw this {found.seen}; errors on what it "
                "never saw are larger"
            )
