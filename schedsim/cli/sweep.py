"""`schedsim sweep`: many runs from one file, on all cores, resumable."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.table import Table

from schedsim.cli.console import stdout_console
from schedsim.cli.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, user_errors
from schedsim.cli.progress import count_progress
from schedsim.cli.side_by_side import note
from schedsim.errors import ConfigError
from schedsim.results.table import format_figure
from schedsim.sweep.backends import choose_backend
from schedsim.sweep.capacity import Search
from schedsim.sweep.config import SweepConfig, read_config
from schedsim.sweep.points import Point, describe_search, points_of, varied
from schedsim.sweep.running import Swept, go_through, make_work, run_sweep
from schedsim.sweep.store import RUNS, SweepStore, is_sweep, stored_rows

EXAMPLES = """\
Examples:

schedsim sweep --example > sweep.toml  (a file to start from)

schedsim sweep sweep.toml --dry-run

schedsim sweep sweep.toml --out swept  (killed, it goes on where it was when run again)

schedsim report swept --out swept.html  (curves over the rates)
"""

EXAMPLE = """\
[settings] # of every run: the options of `schedsim run`, with _ for -, and trace
trace = "sample" # or a file, or generate:azure-conv,requests=1000,rate=5
gpu = "a100-40gb"
limit = 200
slo_ttft = 0.5
slo_tpot = 0.05

[grid] # every combination runs
policy = ["vllm", "sarathi"]
rate_scale = [1.0, 2.0, 3.0]

# Instead of fixed rates, the highest one that keeps an objective:
# [capacity]
# setting = "rate_scale"
# low = 0.5
# high = 8.0
# tolerance = 0.05
# keep = ["goodput.whole.share >= 0.9"]
"""

SHOWN_ROWS = 20

COLUMNS = (
    ("requests/s", "throughput.whole.requests_per_s", "rate"),
    ("TTFT p99 (s)", "latency.whole.ttft_s.p99", "seconds"),
    ("TPOT mean (ms)", "latency.whole.tpot_s.mean", "milliseconds"),
    ("end to end mean (s)", "latency.whole.e2e_s.mean", "seconds"),
    ("goodput (share)", "goodput.whole.share", "share"),
    ("stable", "stable", "verdict"),
)


@user_errors()
def sweep(
    config: Annotated[
        Path | None,
        typer.Argument(help="A .toml or .yaml file; docs/sweep.md says what stands in it."),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Directory of the sweep; default: the file's name without its suffix."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything and list the runs; run nothing.")
    ] = False,
    example: Annotated[
        bool, typer.Option("--example", help="Print a file to start from, and end.")
    ] = False,
    jobs: Annotated[
        int | None,
        typer.Option(help="Processes; default: one for each core.", min=1),
    ] = None,
    backend: Annotated[
        Literal["local", "ray"], typer.Option(help="This machine, or a Ray cluster.")
    ] = "local",
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress, no notes.")] = False,
) -> None:
    """Run every combination of a file's values and put all results into one Parquet dataset.

    Killed anywhere and run again, it loses nothing and does nothing twice.
    """
    if example:
        typer.echo(EXAMPLE, nl=False)
        return
    if config is None:
        raise ConfigError("name a configuration; `schedsim sweep --example` prints one")
    asked = read_config(config)
    points = points_of(asked)
    directory = out or config.with_suffix("")
    if dry_run:
        _print_plan(asked, points, directory)
        return
    store = SweepStore(directory, asked.model_dump())
    unit = "runs" if asked.capacity is None else "searches"
    try:
        with (
            choose_backend(backend, jobs, os.environ.get("RAY_ADDRESS")) as workers,
            count_progress(config.name, len(points), quiet, unit) as progress,
        ):
            swept = run_sweep(asked, points, store, workers, progress)
    except KeyboardInterrupt:
        typer.echo(
            f"interrupted; {len(store.rows)} runs are kept in {directory}: run the same command "
            "again to go on",
            err=True,
        )
        raise typer.Exit(EXIT_INTERRUPTED) from None
    finally:
        store.close()
    _print_results(asked, swept)
    if not quiet:
        there = len(swept.rows) - swept.made
        note(
            f"{swept.made} runs made, {there} were there; all {len(swept.rows)} in "
            f"{directory / RUNS}"
        )
    if swept.failed:
        first = swept.failed[0]
        typer.echo(
            f"error: {len(swept.failed)} of {len(swept.rows)} runs failed, see column error; the "
            f"first, {first['policy']}: {first['error']}",
            err=True,
        )
        raise typer.Exit(EXIT_USER_ERROR)


def _print_plan(config: SweepConfig, points: Sequence[Point], directory: Path) -> None:
    rows = {row["run"]: row for row in stored_rows(directory)} if is_sweep(directory) else {}
    works = make_work(points, config.capacity)
    left = [work for work in works if go_through(work, rows) is not None]
    names = varied(config)
    table = Table(*names, box=None, pad_edge=False)
    for point in points[:SHOWN_ROWS]:
        assigned = dict(point.assigned)
        table.add_row(*("-" if name not in assigned else str(assigned[name]) for name in names))
    if names:
        stdout_console().print(table)
    if len(points) > SHOWN_ROWS:
        typer.echo(f"… and {len(points) - SHOWN_ROWS} more")
    if config.capacity is None:
        typer.echo(f"{len(points)} runs, {len(points) - len(left)} of them in {directory}")
    else:
        typer.echo(f"{len(points)} searches for {describe_search(config.capacity)}")
        typer.echo(f"{len(points) - len(left)} of them through, {len(rows)} runs in {directory}")


def _print_results(config: SweepConfig, swept: Swept) -> None:
    names = varied(config)
    table = Table(*names, show_edge=False, pad_edge=False)
    if config.capacity is None:
        shown = [
            c for c in COLUMNS if any(row.get(c[1]) is not None for row in swept.rows.values())
        ]
    else:
        table.add_column(f"highest {config.capacity.setting}", justify="right")
        table.add_column("runs", justify="right")
        shown = [column for column in COLUMNS if column[0] != "stable"]
    for label, _, _ in shown:
        table.add_column(label, justify="right")
    for work in swept.work[:SHOWN_ROWS]:
        assigned = dict(work.point.assigned)
        cells = ["-" if name not in assigned else str(assigned[name]) for name in names]
        row: dict[str, Any] = swept.rows[work.keys[-1]]
        if work.search is not None:
            cells += [_capacity_in_words(work.search, config), str(len(work.keys))]
            row = next((swept.rows[k] for k in work.keys if swept.rows[k]["is_capacity"]), {})
        cells += [format_figure(row.get(name), unit) for _, name, unit in shown]
        table.add_row(*cells)
    stdout_console().print(table)
    if len(swept.work) > SHOWN_ROWS:
        typer.echo(f"… and {len(swept.work) - SHOWN_ROWS} more")


def _capacity_in_words(search: Search, config: SweepConfig) -> str:
    assert config.capacity is not None, "a search has a configuration"
    if search.kept is None:
        return f"below {config.capacity.low:g}"
    if search.missed is None:
        return f"{search.kept:g} or more"
    return f"{search.kept:.4g}"
