"""`schedsim diff`: two decision records, and where they part."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from schedsim.cli.console import stdout_console
from schedsim.cli.errors import user_errors
from schedsim.results.decision_file import DecisionFile
from schedsim.results.difference import Comparison, Row, compare_decisions

EXIT_DIFFERENT = 1

EXAMPLES = """\
Examples:

schedsim diff measured simulated  (two run directories, each written with --decisions)

schedsim diff run/decisions.jsonl.gz recorded.jsonl
"""

Record = Annotated[
    Path, typer.Argument(help="Run directory with decisions, or a .jsonl or .jsonl.gz record.")
]


@user_errors()
def diff(
    run_a: Record,
    run_b: Record,
    as_json: Annotated[bool, typer.Option("--json", help="Print the comparison as JSON.")] = False,
) -> None:
    """Compare two decision records; exit code 0: the same, 1: the first difference is shown."""
    comparison = compare_decisions(DecisionFile(run_a), DecisionFile(run_b))
    if as_json:
        typer.echo(json.dumps(comparison.as_json(), indent=2, ensure_ascii=False))
    else:
        print_comparison(comparison)
        if comparison.settings:
            table = _table("settings that differ", comparison.headings, comparison.settings)
            stdout_console().print(table)
    if not comparison.same:
        raise typer.Exit(EXIT_DIFFERENT)


def print_comparison(comparison: Comparison) -> None:
    """Say on stdout that two records are the same, or what differs, side by side."""
    counts = f"{comparison.scheduled:,} scheduled entries, {comparison.preemptions:,} preemptions"
    difference = comparison.difference
    if difference is None:
        typer.echo(f"{comparison.iterations:,} iterations, the same: {counts}")
    else:
        typer.echo(
            f"the first difference is in iteration {difference.iteration:,}, counted from 0; "
            f"the same before it: {counts}"
        )
        for line in difference.before:
            typer.echo(f"  {line}")
        title = f"iteration {difference.iteration:,}"
        stdout_console().print(_table(title, comparison.headings, difference.rows))


def _table(title: str, headings: tuple[str, str], rows: list[Row]) -> Table:
    table = Table(show_edge=False, pad_edge=False)
    table.add_column(title)
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table
