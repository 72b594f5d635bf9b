"""Running a reproduction: its trials one after the other, and the directory that they fill."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from schedsim.errors import ConfigError, SchedsimError
from schedsim.experiments.reproductions.base import Figure, Reproduction, Row, Trial
from schedsim.results.directory import RunDirectory
from schedsim.results.manifest import package_version

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Reproduced:
    """What was published beside what we found, and the rows behind it."""

    reproduction: Reproduction
    figures: list[Figure]
    rows: list[Row]

    def as_json(self) -> dict[str, Any]:
        """Everything, for `--json`."""
        return {
            "name": self.reproduction.name,
            "source": self.reproduction.source,
            "setup": asdict(self.reproduction.setup),
            "notes": list(self.reproduction.notes),
            "figures": [asdict(figure) for figure in self.figures],
            "runs": self.rows,
        }


def plan(reproduction: Reproduction, scale: float = 1.0, seed: int = 0) -> list[Trial]:
    """The trials of a reproduction, nothing of them made yet.

    Raises:
        ConfigError: `scale` is not above 0 and up to 100, or `seed` is negative.
    """
    if not 0.0 < scale <= 100.0:
        raise ConfigError(
            f"--scale {scale:g} must be above 0 and at most 100; 1 is the whole setup"
        )
    if seed < 0:
        raise ConfigError(f"--seed {seed} must be at least 0")
    return reproduction.trials(scale, seed)


def reproduce(
    reproduction: Reproduction,
    *,
    scale: float = 1.0,
    seed: int = 0,
    out: Path | None = None,
    command: Sequence[str] = (),
    progress: Callable[[], None] = lambda: None,
) -> Reproduced:
    """Make every trial and hold the figures against the published ones.

    With `out` the directory has `figures.parquet`, `runs.parquet` and a manifest. A run that is
    stopped keeps the rows that it has; its manifest says so. `progress` is called after each trial.

    Raises:
        ConfigError: as `plan`, or what a trial needs is not installed.
        OutputError: `out` is in use or cannot be written.
    """
    trials = plan(reproduction, scale, seed)
    directory = (
        None
        if out is None
        else RunDirectory.create(out, _manifest(reproduction, scale, seed, command))
    )
    rows: list[Row] = []
    try:
        for trial in trials:
            rows.append({**trial.labels, **trial.measure()})
            progress()
    except (KeyboardInterrupt, SchedsimError) as stop:
        if directory is not None:
            if rows:
                directory.write_parquet("runs.parquet", _table(rows))
            why = str(stop) or f"interrupted by the user after {len(rows)} of {len(trials)} runs"
            directory.finish({"stopped": why}, complete=False)
        raise
    found = Reproduced(reproduction, reproduction.figures(rows), rows)
    if directory is not None:
        directory.write_parquet("runs.parquet", _table(rows))
        directory.write_parquet("figures.parquet", _figures_table(found.figures))
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        directory.finish({"stopped": None, "finished_at": finished}, complete=True)
    return found


def _manifest(
    reproduction: Reproduction, scale: float, seed: int, command: Sequence[str]
) -> dict[str, Any]:
    return {
        "schema_version": SCHEMA_VERSION,
        "reproduction": reproduction.name,
        "source": reproduction.source,
        "command": list(command),
        "setup": asdict(reproduction.setup),
        "notes": list(reproduction.notes),
        "scale": scale,
        "seed": seed,
        "version": package_version("schedsim"),
    }


def _table(rows: Sequence[Row]) -> Any:
    import pyarrow

    names = list(dict.fromkeys(name for row in rows for name in row))
    return pyarrow.table({name: [row.get(name) for row in rows] for name in names})


def _figures_table(figures: Sequence[Figure]) -> Any:
    import pyarrow

    names = [field.name for field in fields(Figure)]
    return pyarrow.table({name: [getattr(f, name) for f in figures] for name in names})
