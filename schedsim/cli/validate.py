"""`schedsim validate`: a measured run against its simulation."""

import json
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from schedsim.cli.calibration_tables import errors_table, percent
from schedsim.cli.console import stdout_console
from schedsim.cli.diff import EXIT_DIFFERENT, print_comparison
from schedsim.cli.errors import user_errors
from schedsim.cli.side_by_side import note, read_for_run
from schedsim.cli.working import working
from schedsim.errors import ConfigError, SchedsimError
from schedsim.experiments.validation import Replay, Validation, requests_table
from schedsim.experiments.validation import validate as validate_run
from schedsim.results.directory import check_unused, write_parquet, write_whole
from schedsim.results.labels import LABELS
from schedsim.results.stored_run import load_run
from schedsim.results.table import format_figure

EXAMPLES = """\
Examples:

schedsim validate trace.csv.gz --from measured --calibration cpu.json

schedsim validate --from measured --step-time roofline --out report  (a run of the sample)
"""


@user_errors()
def validate(
    trace: Annotated[
        Path | None, typer.Argument(help="The trace of the run; default: the sample.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option("--from", help="Directory of the measured run.")
    ] = None,
    calibration: Annotated[
        Path | None, typer.Option(help="A file of `schedsim calibrate`: the step time to hold.")
    ] = None,
    step_time: Annotated[
        str | None, typer.Option(help="Another step time to hold, e.g. roofline.")
    ] = None,
    spread_ticks: Annotated[
        bool, typer.Option("--spread-ticks", help="As the run was given it.")
    ] = False,
    think_cap: Annotated[float | None, typer.Option(help="As the run was given it.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="New directory for validation.json, requests.parquet and both runs."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print validation.json.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No notes.")] = False,
) -> None:
    """Simulate a measured run again, print both and their difference, and say where it comes from.

    Exit code 1: with the run's own times the simulation decides otherwise than the run did.
    """
    if run is None:
        raise ConfigError(
            "name the measured run with --from RUN_DIR, the --out of a `schedsim execute`"
        )
    if (calibration is None) == (step_time is None):
        raise ConfigError(
            "give the step time to hold against the run: either --calibration FILE, which "
            "`schedsim calibrate --from OTHER_RUN --out FILE` writes, or --step-time SPEC"
        )
    source = step_time or f"fitted:{calibration}"
    measured = load_run(run)
    given = read_for_run(trace, spread_ticks, think_cap, quiet)
    with _folder(out) as folder, nullcontext() if quiet else working("simulating twice"):
        command = ["schedsim", *sys.argv[1:]]
        validation = validate_run(measured, given, source, folder, command)
    if out is not None:
        _write(validation, out)
    if as_json:
        typer.echo(json.dumps(validation.as_json(), indent=2, ensure_ascii=False))
    else:
        _print(validation)
    if not quiet:
        _remark(validation, out)
    if not validation.replay.same:
        raise typer.Exit(EXIT_DIFFERENT)


@contextmanager
def _folder(out: Path | None) -> Iterator[Path]:
    """Where both simulations write: a new directory `out`, or one that goes away.

    `out` comes with the first simulation; what is in it when an error ends both is told.
    """
    if out is None:
        with tempfile.TemporaryDirectory(prefix="schedsim-") as scratch:
            yield Path(scratch)
        return
    check_unused(out)
    try:
        yield out
    except (SchedsimError, KeyboardInterrupt):
        kept = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
        if kept:
            note(f"not validated; kept in {out}: {', '.join(kept)}")
        raise


def _write(validation: Validation, out: Path) -> None:
    write_parquet(out / "requests.parquet", requests_table(validation))
    content = validation.as_json()
    write_whole(out / "validation.json", json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def _print(validation: Validation) -> None:
    _print_replay(validation.replay)
    console = stdout_console()
    console.print(_metrics_table(validation))
    steps = validation.steps
    rows = {"all": steps} | {f"{kind} only": row for kind, row in steps["by_kind"].items()}
    rows["mixed"] = rows.pop("mixed only")
    console.print(errors_table("step time on the measured batches", rows))
    typer.echo(_error_in_a_line(validation))


def _error_in_a_line(validation: Validation) -> str:
    """Where the error of the mean end-to-end time comes from."""
    budget, error = validation.budget["e2e_s.mean"], validation.metrics["e2e_s.mean"]
    decisions, step_time = budget["decisions"], budget["step_time"]
    if decisions is None or step_time is None or error["relative_error"] is None:
        return "end to end mean: no error can be told apart"
    total = percent(error["relative_error"], signed=True)
    return (
        f"end to end mean: {total}, of which {percent(decisions, signed=True)} decisions and "
        f"{percent(step_time, signed=True)} step time (the measured batches take "
        f"{percent(validation.steps['total'], signed=True)} by the model)"
    )


def _print_replay(replay: Replay) -> None:
    compared = replay.comparison
    if replay.error is not None:
        typer.echo(f"replay with the measured times: {replay.error}")
    elif compared is None:
        typer.echo("replay with the measured times: every batch has the measured size")
    if compared is not None:
        typer.echo("replay with the measured times: ", nl=False)
        print_comparison(compared)


def _metrics_table(validation: Validation) -> Table:
    table = Table(show_edge=False, pad_edge=False)
    table.add_column("whole run")
    for name in ("measured", "simulated", "error"):
        table.add_column(name, justify="right")
    for name, figures in validation.metrics.items():
        label, unit = LABELS[name]
        error = figures["relative_error"]
        table.add_row(
            label,
            format_figure(figures["measured"], unit),
            format_figure(figures["simulated"], unit),
            "-" if error is None else percent(error, signed=True),
        )
    return table


def _remark(validation: Validation, out: Path | None) -> None:
    if not validation.run.has_decisions:
        note(
            f"{validation.run.path} has no decision record, so the replay was held to its batch "
            "sizes only; run it again with --decisions"
        )
    for text in validation.simulated.notes:
        note(text)
    divergence = validation.divergence
    if divergence is not None:
        if divergence.same:
            note("the free simulation decides everything as the run did")
        else:
            note(
                "the free simulation decides otherwise than the run: first in iteration "
                f"{divergence.iterations:,}, from 0"
            )
    if validation.seen is not None:
        note(
            f"IN-SAMPLE: the calibration saw this {validation.seen}; errors on what it never saw "
            "are larger"
        )
    if out is not None:
        note(f"results in {out}")
