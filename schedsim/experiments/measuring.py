"""Policies on a device, repeated, one folder a run: what a validation needs measured."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from schedsim.config import RunSettings
from schedsim.experiments.execution import DeviceModel, execute_policy
from schedsim.experiments.runs import RunOptions, folder_names
from schedsim.traces.trace import Trace

Report = Callable[[float, int], None]
Watch = Callable[[str, int], AbstractContextManager[Report | None]]


def run_folders(folder: Path, policies: Sequence[str], repeats: int) -> Iterator[tuple[int, Path]]:
    """Which policy runs next, by its place, and where it writes.

    All policies run once before any runs again, so that what drifts on the machine does not fall
    on one of them alone.
    """
    names = folder_names(policies)
    for repeat in range(1, repeats + 1):
        for place, name in enumerate(names):
            yield place, folder / name / f"measured-{repeat}"


def measure(
    trace: Trace,
    settings: Sequence[RunSettings],
    repeats: int,
    folder: Path,
    model: DeviceModel,
    *,
    decisions: bool = False,
    command: Sequence[str] = (),
    watch: Watch,
) -> list[Path]:
    """Execute each policy `repeats` times on a prepared trace, with trails; where the runs are.

    `watch` gives for a run, by its name and its number of requests, what to report progress to.

    Raises:
        ConfigError, PolicyError, ExecutionError, OutputError: as `execute_policy`, or what stopped
            a run; the runs before it, and what it had itself, are kept.
        KeyboardInterrupt: the user stopped it, likewise.
    """
    paths = []
    for place, path in run_folders(folder, [chosen.policy for chosen in settings], repeats):
        options = RunOptions(path, decisions=decisions, trail=True, command=command)
        with watch(f"{path.parent.name}, {path.name}", len(trace)) as progress:
            outcome = execute_policy(
                trace, settings[place], options, model=model, progress=progress
            )
        if outcome.error is not None:
            raise outcome.error
        if outcome.is_interrupted:
            raise KeyboardInterrupt
        paths.append(path)
    return paths
