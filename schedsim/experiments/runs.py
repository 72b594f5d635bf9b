"""Running a policy on a trace: the results are kept whatever happens."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from schedsim.config import RunSettings
from schedsim.costs.base import StepCost
from schedsim.errors import OutputError, SchedsimError
from schedsim.experiments.setup import PreparedRun, prepare_run
from schedsim.policies import Policy
from schedsim.results import (
    DecisionWriter,
    Result,
    RunDirectory,
    TimelineWriter,
    build_manifest,
    build_result,
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
    """A run's result, notes on how it was set up and, if it stopped in the middle, why."""

    result: Result
    notes: tuple[str, ...]
    stopped: str | None = None


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
    )
    if options.out is None:
        stopped, _ = _simulate(prepared)
        return Outcome(_result_of(prepared, stopped), prepared.notes, stopped)
    directory = RunDirectory.create(options.out, _manifest(trace, settings, prepared, options))
    writers: list[DecisionWriter | TimelineWriter] = []
    try:
        if options.decisions:
            writers.append(DecisionWriter(directory, prepared.meta))
        if options.timeline:
            writers.append(TimelineWriter(directory))
        prepared.simulation.observe(*writers)
        stopped, cpu_s = _simulate(prepared)
        for writer in writers:
            writer.close()
    finally:
        for writer in writers:
            writer.abort()  # no effect on one that is closed
    result = _result_of(prepared, stopped)
    result.write(directory)
    requests = result.summary["requests"]
    updates = speed(result.summary["output_tokens"], requests["finished"], cpu_s)
    directory.finish({**updates, "stopped": stopped}, complete=stopped is None)
    return Outcome(result, prepared.notes, stopped)


def run_directories(out: Path | None, policies: Sequence[str]) -> list[Path | None]:
    """Where each policy writes: one policy into `out`, several into a folder each below it.

    Raises:
        OutputError: `out` is there and is not an empty directory.
    """
    if out is None or len(policies) == 1:
        return [out] * len(policies)
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise OutputError(
            f"{out} exists and is not an empty directory; results are never overwritten: "
            "choose another directory, or remove this one"
        )
    return [out / name for name in folder_names(policies)]


def folder_names(policies: Sequence[str]) -> list[str]:
    """A distinct folder name for each policy spec."""
    names: list[str] = []
    for policy in policies:
        plain = "".join(c if c.isalnum() or c in "-_=,." else "-" for c in policy).strip("-.")
        name, number = plain, 2
        while name in names:
            name, number = f"{plain}-{number}", number + 1
        names.append(name)
    return names


def _simulate(prepared: PreparedRun) -> tuple[str | None, float]:
    """Run; why it stopped in the middle, if it did, and the CPU seconds it took."""
    started = time.process_time()
    stopped = None
    try:
        prepared.simulation.run()
    except KeyboardInterrupt:
        stopped = INTERRUPTED
    except SchedsimError as error:  # a policy's, or a disk that is full under an observer
        stopped = str(error)
    return stopped, time.process_time() - started


def _result_of(prepared: PreparedRun, stopped: str | None) -> Result:
    return build_result(prepared.simulation.record(stopped))


def _manifest(
    trace: Trace, settings: RunSettings, prepared: PreparedRun, options: RunOptions
) -> dict[str, object]:
    manifest = build_manifest(
        command=options.command,
        config={**settings.model_dump(), "resolved": prepared.resolved},
        trace=trace,
        seed=settings.seed,
        decision_lag=0,
        estimator=prepared.cost.describe(),
    )
    return {**manifest, "notes": list(prepared.notes)}
