"""Policies on one trace, one after the other, and what is printed of them."""

import json
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import typer
from rich.table import Table

from schedsim.cli.console import stdout_console
from schedsim.cli.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR
from schedsim.cli.progress import Report, progress_bar
from schedsim.cli.working import working
from schedsim.config import RunSettings
from schedsim.errors import ConfigError
from schedsim.experiments.runs import (
    Outcome,
    RunOptions,
    folder_names,
    run_directories,
)
from schedsim.policies import POLICIES
from schedsim.policies.loading import make_policy
from schedsim.results import Result, render_table
from schedsim.traces import Trace, read_trace
from schedsim.traces.sample import sample_trace


@dataclass(frozen=True, slots=True)
class Output:
    """What a command writes, checks and prints."""

    out: Path | None
    decisions: bool
    timeline: bool
    check: int | None
    as_json: bool
    quiet: bool
    fast_forward: bool = True


class RunOne(Protocol):
    """Runs one policy, as `run_policy` does."""

    def __call__(
        self,
        trace: Trace,
        settings: RunSettings,
        options: RunOptions,
        *,
        progress: Report | None,
    ) -> Outcome: ...


class Job(NamedTuple):
    """One run of a command: what it is called, and where it writes."""

    label: str
    trace: Trace
    settings: RunSettings
    directory: Path | None


def check_output(settings: Sequence[RunSettings], output: Output) -> list[Path | None]:
    """Where each policy writes; a wrong name or place stops the command before anything runs.

    Raises:
        ConfigError, PolicyError: a policy cannot be made.
        OutputError: the directory for results is in use.
    """
    specs = [chosen.policy for chosen in settings]
    for spec in specs:
        make_policy(spec)
    if output.out is None and (output.decisions or output.timeline):
        raise ConfigError("--decisions and --timeline write files: name a directory with --out")
    return run_directories(output.out, specs)


def read_for_run(
    path: Path | None, spread_ticks: bool, think_cap: float | None, quiet: bool
) -> Trace:
    """The trace at `path`, or the bundled sample, with notes on what reading it did.

    Raises:
        ConfigError, TraceError: it cannot be read, or an option is not for it.
    """
    if path is None:
        if spread_ticks or think_cap is not None:
            raise ConfigError(
                "--spread-ticks and --think-cap are for a trace of your own: the bundled sample "
                "has neither ticks nor think times"
            )
        trace = sample_trace()
    else:
        if str(path) in POLICIES and not path.exists():
            raise ConfigError(f"{path} is no trace file but a policy: write --policy {path}")
        with nullcontext() if quiet else working(f"reading {path}"):
            trace = read_trace(path, spread_ticks=spread_ticks, think_cap_s=think_cap)
    if not quiet:
        for reason, rows in trace.source.dropped.items():
            note(f"{trace.source.name}: {rows} of {trace.source.rows_read} rows dropped: {reason}")
        for text in trace.source.notes:
            note(f"{trace.source.name}: {text}")
    return trace


def run_all(
    trace: Trace,
    settings: Sequence[RunSettings],
    directories: list[Path | None],
    output: Output,
    run_one: RunOne,
    *,
    unit: str,
) -> None:
    """Run each policy on a prepared trace, print the table, and end as the runs ended.

    `unit` says what the progress bar's seconds are.

    Raises:
        typer.Exit: with 130 after Ctrl-C and with 2 after an error in the middle of a run.
    """
    names = folder_names([chosen.policy for chosen in settings])
    jobs = [
        Job(label, trace, chosen, directory)
        for label, chosen, directory in zip(names, settings, directories, strict=True)
    ]
    run_jobs(jobs, output, run_one, unit=unit, show=render_table)


def run_jobs(
    jobs: Sequence[Job],
    output: Output,
    run_one: RunOne,
    *,
    unit: str,
    show: Callable[[dict[str, Result]], Table],
) -> None:
    """Run one job after the other, print what `show` makes of their results, and end as they did.

    Raises:
        typer.Exit: as `run_all`.
    """
    command = ["schedsim", *sys.argv[1:]]
    outcomes: dict[str, Outcome] = {}
    for job in jobs:
        options = RunOptions(
            job.directory,
            decisions=output.decisions,
            timeline=output.timeline,
            check_every=output.check,
            fast_forward=output.fast_forward,
            command=command,
        )
        with progress_bar(job.label, len(job.trace), output.quiet, unit) as progress:
            outcome = run_one(job.trace, job.settings, options, progress=progress)
        outcomes[job.label] = outcome
        if outcome.is_interrupted:
            break
    directories = [job.directory for job in jobs]
    _report(outcomes, directories, output, show)
    never_ran = [job.label for job in jobs[len(outcomes) :]]
    _fail_if_stopped(outcomes, directories, never_ran)


def _report(
    outcomes: dict[str, Outcome],
    directories: list[Path | None],
    output: Output,
    show: Callable[[dict[str, Result]], Table],
) -> None:
    results = {label: outcome.result for label, outcome in outcomes.items()}
    if not output.quiet:
        for text in dict.fromkeys(n for outcome in outcomes.values() for n in outcome.notes):
            whose = [label for label, outcome in outcomes.items() if text in outcome.notes]
            note(text if len(whose) == len(outcomes) else f"{', '.join(whose)}: {text}")
    if output.as_json:
        summaries = {label: result.summary for label, result in results.items()}
        typer.echo(json.dumps(summaries, indent=2, ensure_ascii=False))
    else:
        stdout_console().print(show(results))
    written = any(directory is not None and directory.exists() for directory in directories)
    if written and not output.quiet:
        note(f"results in {output.out}")


def _fail_if_stopped(
    outcomes: dict[str, Outcome], directories: list[Path | None], never_ran: Sequence[str]
) -> None:
    stopped = [outcome for outcome in outcomes.values() if outcome.stopped is not None]
    for outcome, directory in zip(outcomes.values(), directories, strict=False):
        if outcome.stopped is not None:
            told = outcome.stopped
            if directory is not None:
                told += f"; what had finished is kept in {directory}"
            if outcome.is_interrupted and never_ran:
                told += f"; never ran: {', '.join(never_ran)}"
            typer.echo(f"error: {told}", err=True)
    if stopped:
        is_interrupted = any(outcome.is_interrupted for outcome in stopped)
        raise typer.Exit(EXIT_INTERRUPTED if is_interrupted else EXIT_USER_ERROR)


def note(text: str) -> None:
    """A remark on stderr."""
    typer.echo(f"note: {text}", err=True)
