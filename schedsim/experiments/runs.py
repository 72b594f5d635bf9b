"""Running a policy on a trace: the results are kept whatever happens."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from schedsim.backend import Backend
from schedsim.config import RunSettings
from schedsim.costs import StepCost
from schedsim.costs.noise import StepNoise
from schedsim.errors import SchedsimError
from schedsim.experiments.interrupt import first_interrupt
from schedsim.experiments.notes import notes_on_outcome
from schedsim.experiments.setup import PreparedRun, prepare_run
from schedsim.policies import Policy
from schedsim.results import (
    DecisionWriter,
    Result,
    RunDirectory,
    TimelineWriter,
    TrailWriter,
    build_result,
    check_unused,
    speed,
)
from schedsim.traces.trace import Trace


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a run writes and checks beside its settings; `command` goes into the manifest.

    Without `fast_forward` every iteration of a simulation is decided by itself, as it also is where
    `decisions`, `trail` or `timeline` want to see each of them.
    """

    out: Path | None = None
    decisions: bool = False
    trail: bool = False
    timeline: bool = False
    check_every: int | None = None
    fast_forward: bool = True
    command: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """A run's result and notes on it; if it stopped in the middle, why, and the error if any."""

    result: Result
    notes: tuple[str, ...]
    stopped: str | None = None
    error: SchedsimError | None = None

    @property
    def is_interrupted(self) -> bool:
        """Whether the user stopped it."""
        return self.stopped is not None and self.error is None

    def whole(self) -> Result:
        """The result of a run that came to its end.

        Raises:
            SchedsimError, KeyboardInterrupt: what stopped it.
        """
        if self.is_interrupted:
            raise KeyboardInterrupt
        if self.error is not None:
            raise self.error
        return self.result


def run_policy(
    trace: Trace,
    settings: RunSettings,
    options: RunOptions | None = None,
    *,
    policy: Policy | None = None,
    cost: StepCost | None = None,
    noise: StepNoise | None = None,
    progress: Callable[[float, int], None] | None = None,
) -> Outcome:
    """Run one policy on a prepared trace and write its directory, if `options` name one.

    `policy`, `cost` and `noise` replace what the settings name. A run that a policy's error or
    Ctrl-C stops keeps what it has; the outcome says why it stopped.

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
        noise=noise,
        check_every=options.check_every,
        progress=progress,
        command=options.command,
        fast_forward=options.fast_forward,
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
    writers: list[DecisionWriter | TrailWriter | TimelineWriter] = []
    try:
        if options.decisions:
            writers.append(DecisionWriter(directory, prepared.resolved))
        if options.trail:
            writers.append(TrailWriter(directory))
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
    device_log = prepared.backend.device_log
    if device_log is not None:
        directory.write_parquet("device.parquet", device_log.table())
    updates: dict[str, Any] = {
        "stopped": outcome.stopped,
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if device_log is not None:
        updates["device_state"] = device_log.summary()
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
    if isinstance(error, SchedsimError):
        stopped = str(error)
    elif error is not None:
        ended = prepared.backend.num_iterations
        where = f"after iteration {ended - 1}" if ended else "before the first iteration ended"
        stopped = f"interrupted by the user {where}"
    record = prepared.backend.record(stopped)
    notes = (*prepared.notes, *notes_on_outcome(record, prepared.step_time))
    told = error if isinstance(error, SchedsimError) else None
    return Outcome(build_result(record), notes, stopped, told)
