"""`schedsim reproduce`: a published experiment again, its figures beside ours."""

import json
import sys
from collections import Counter
from pathlib import Path
from typing import Annotated, get_args

import typer
from rich.table import Table

from schedsim.cli import options
from schedsim.cli.console import stdout_console
from schedsim.cli.errors import user_errors
from schedsim.cli.progress import count_progress
from schedsim.cli.side_by_side import note
from schedsim.experiments.reproductions import REPRODUCTIONS, find_reproduction
from schedsim.experiments.reproductions.base import Figure, Verdict
from schedsim.experiments.reproductions.running import Reproduced, plan
from schedsim.experiments.reproductions.running import reproduce as run_reproduction
from schedsim.results.directory import check_unused

EXAMPLES = """\
Examples:

schedsim reproduce  (lists what there is)

schedsim reproduce anyscale-2023 --out anyscale

schedsim reproduce anyscale-2023 --scale 0.1 --json  (a tenth of the requests, for a quick look)
"""

UNREAD = "?"


@user_errors()
def reproduce(
    name: Annotated[
        str | None, typer.Argument(help="Which one; without it they are listed.")
    ] = None,
    scale: Annotated[
        float, typer.Option(help="Multiply the number of requests; 1 is the setup as it is.")
    ] = 1.0,
    seed: options.Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option(help="New directory for figures.parquet, runs.parquet and manifest.json."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print it all as JSON.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Run a published experiment's setup and print what was published beside what we find.

    A figure agrees within 25 % of what was published, or of the ends of a range; a factor on the
    same side of 1 has the same direction; the rest differs, and a note says why.
    """
    if name is None:
        _print_list()
        return
    reproduction = find_reproduction(name)
    if out is not None:
        check_unused(out)
    total = len(plan(reproduction, scale, seed))
    with count_progress(name, total, quiet, "runs") as advance:
        found = run_reproduction(
            reproduction,
            scale=scale,
            seed=seed,
            out=out,
            command=["schedsim", *sys.argv[1:]],
            progress=advance,
        )
    if as_json:
        typer.echo(json.dumps(found.as_json(), indent=2, ensure_ascii=False))
    else:
        _print_figures(found, quiet)
    if not quiet and out is not None:
        note(f"results in {out}")


def _print_list() -> None:
    table = Table("reproduction", "what it is about", "source", box=None, pad_edge=False)
    for name, reproduction in REPRODUCTIONS.items():
        table.add_row(name, reproduction.title, reproduction.source)
    stdout_console().print(table)
    typer.echo("To run one: schedsim reproduce NAME")


def _print_figures(found: Reproduced, quiet: bool) -> None:
    table = Table(show_edge=False, pad_edge=False)
    table.add_column(found.reproduction.name)
    for heading in ("published", "ours"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for figure in found.figures:
        mark = "" if figure.read else f" {UNREAD}"
        table.add_row(figure.name, figure.published + mark, figure.ours, figure.verdict)
    stdout_console().print(table)
    typer.echo(_in_a_line(found.figures))
    if any(not figure.read for figure in found.figures):
        typer.echo(f"{UNREAD}: could not be read in the publication itself")
    for why, names in _causes(found.figures).items():
        typer.echo(f"{'; '.join(names)}: {why}")
    if not quiet:
        for text in found.reproduction.notes:
            note(text)


def _in_a_line(figures: list[Figure]) -> str:
    """How many figures have which verdict."""
    counts = Counter(figure.verdict for figure in figures)
    told = ", ".join(f"{verdict}: {counts[verdict]}" for verdict in get_args(Verdict))
    return f"{len(figures)} figures; {told}"


def _causes(figures: list[Figure]) -> dict[str, list[str]]:
    """Why figures differ, each cause once, with the figures that it is about."""
    causes: dict[str, list[str]] = {}
    for figure in figures:
        if figure.why:
            causes.setdefault(figure.why, []).append(figure.name)
    return causes
