"""Running a policy on a trace: the results are kept whatever happens."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from schedsim.backend import Backend
from schedsim.config import RunSettings
from schedsim.costs import FittedCost, StepCost
from schedsim.errors import SchedsimError
from schedsim.experiments.interrupt import first_interrupt
from schedsim.experiments.setup import PreparedRun, prepare_run
from schedsim.policies import Policy
from schedsim.request import Status
from schedsim.results import (
    DecisionWriter,
    Result,
    RunDirectory,
    TimelineWriter,
    build_result,
    check_unused,
    speed,
)
from schedsim.traces.trace import Trace

INTERRUPTED = "interrupted by the user"


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a run writes and checks beside its settings; `command` goes into the manifest."""

    out: Path | None = None
    decisions: bool = False
    timeline: bool = False
    check_every: int | None = None
    command: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run's result and notes on it; if it stopped in the middle, why, and the error if any."""

    result: Result
    notes: tuple[str, ...]
    stopped: str | None = None
    error: SchedsimError | None = None


def run_policy(
    trace: Trace,
    settings: RunSettings,
    options: RunOptions | None = None,
    *,
    policy: Policy | None = None,
    cost: StepCost | None = None,
    progress: Callable[[float, int], None] | None = None,
) -> Outcome:
    """Run one policy on a prepared trace and write its directory, if `options` name one.

    `policy` and `cost` replace what the settings name. A run that a policy's error or Ctrl-C
    stops keeps what it has; the outcome says why it stopped.

    Raises:
        ConfigError, PolicyError: before the run starts.
        OutputError: the directory or a file cannot be written.
    """
    options = options or RunOptions()
    prepared = prepare_run(
        trace,
        settings,
        policy=policy,
        cost=cost,
        check_every=options.check_every,
        progress=progress,
        command=options.command,
    )
    return run_prepared(prepared, options)


def run_prepared(prepared: PreparedRun, options: RunOptions) -> Outcome:
    """Run a backend to its end or until something stops it, and write its directory.

    Raises:
        OutputError: the directory or a file cannot be written.
    """
    if options.out is None:
        return _outcome(prepared, _run(prepared.backend))
    directory = RunDirectory.create(options.out, prepared.manifest)
    writers: list[DecisionWriter | TimelineWriter] = []
    try:
        if options.decisions:
            writers.append(DecisionWriter(directory, prepared.resolved))
        if options.timeline:
            writers.append(TimelineWriter(directory))
        prepared.backend.observe(*writers)
        started = time.process_time()
        error = _run(prepared.backend)
        cpu_s = time.process_time() - started
        outcome = _outcome(prepared, error)
        # The tables first: a disk that is full when the streams are closed costs only these.
        outcome.result.write(directory)
        for writer in writers:
            writer.close()
    finally:
        for writer in writers:
            writer.abort()  # no effect on one that is closed
    updates: dict[str, Any] = {
        "stopped": outcome.stopped,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if "execution" not in prepared.manifest:
        summary = outcome.result.summary
        updates |= speed(summary["output_tokens"], summary["requests"]["finished"], cpu_s)
    directory.finish(updates, complete=outcome.stopped is None)
    return outcome


def run_directories(out: Path | None, policies: Sequence[str]) -> list[Path | None]:
    """Where each policy writes: one policy into `out`, several into a folder each below it.

    Raises:
        OutputError: `out` is there and is not an empty directory.
    """
    if out is not None:
        check_unused(out)
    if out is None or len(policies) == 1:
        return [out] * len(policies)
    return [out / name for name in folder_names(policies)]


def folder_names(policies: Sequence[str]) -> list[str]:
    """A distinct folder name for each policy spec."""
    names: list[str] = []
    for policy in policies:
        plain = "".join(c if c.isalnum() or c in "-_=,.@" else "-" for c in policy).strip("-.")
        name, number = plain, 2
        while name in names:
            name, number = f"{plain}-{number}", number + 1
        names.append(name)
    return names


def _run(backend: Backend) -> SchedsimError | KeyboardInterrupt | None:
    """Run; what stopped it in the middle, if anything did.

    Raises:
        KeyboardInterrupt: a second Ctrl-C broke the run off where its books do not add up.
    """
    try:
        with first_interrupt(backend.stop):
            return None if backend.run() else KeyboardInterrupt()
    except KeyboardInterrupt as interrupt:
        if not backend.books_hold():
            raise
        return interrupt
    except SchedsimError as error:  # a policy's, or a disk that is full under an observer
        return error


def _outcome(prepared: PreparedRun, error: SchedsimError | KeyboardInterrupt | None) -> Outcome:
    stopped = None
    if error is not None:
        stopped = str(error) if isinstance(error, SchedsimError) else INTERRUPTED
    record = prepared.backend.record(stopped)
    notes = list(prepared.notes)
    rejected = [r for r in record.released_requests() if r.status is Status.REJECTED]
    if rejected:
        notes.append(
            f"{len(rejected)} of {len(record.trace)} requests rejected; the first, request "
            f"{rejected[0].id}: {rejected[0].reason}; see --max-model-len, --blocks and "
            "--max-output, or cut the trace with  schedsim trace convert --max-context"
        )
    if isinstance(prepared.step_time, FittedCost):
        notes.extend(prepared.step_time.beyond(record.steps))
    told = error if isinstance(error, SchedsimError) else None
    return Outcome(build_result(record), tuple(notes), stopped, told)
