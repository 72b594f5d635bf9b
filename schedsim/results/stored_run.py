"""`StoredRun`: the result files of a finished run, read back."""

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from schedsim.errors import ResultError
from schedsim.results.decision_file import DECISIONS, not_a_run
from schedsim.results.directory import MANIFEST
from schedsim.results.quantiles import Floats
from schedsim.results.summary import SCHEMA_VERSION

if TYPE_CHECKING:
    import pyarrow


@dataclass(frozen=True, slots=True)
class StoredRun:
    """A run that came to its end, simulated or measured; `path` is what the user called it."""

    path: Path
    manifest: dict[str, Any]
    summary: dict[str, Any]
    requests: "pyarrow.Table" = field(repr=False)
    steps: "pyarrow.Table" = field(repr=False)
    steps_sha256: str

    @property
    def is_measured(self) -> bool:
        """Whether a device ran it."""
        return "execution" in self.manifest

    @property
    def execution(self) -> dict[str, Any]:
        """What the device and its engine were; empty of a simulation."""
        return self.manifest.get("execution") or {}

    @property
    def device_uuid(self) -> str | None:
        """That of the device; None where none was noted, as of a simulation."""
        uuid: str | None = self.execution.get("device_uuid")
        return uuid

    @property
    def has_decisions(self) -> bool:
        """Whether it wrote a decision record."""
        return (self.path / DECISIONS).is_file()


def load_run(path: Path) -> StoredRun:
    """The run in the directory `path`.

    Raises:
        ResultError: no run is there, it did not come to its end, it is of another version, or a
            file is absent or damaged; names the file and says what to do.
    """
    manifest, summary, requests = load_outcome(path)
    steps = path / "steps.parquet"
    table = load_table(steps)
    if not table.num_rows:
        raise ResultError(f"{path} holds no iteration: nothing ran in it")
    return StoredRun(
        path,
        manifest,
        summary,
        requests,
        table,
        hashlib.sha256(steps.read_bytes()).hexdigest(),
    )


class RunOutcome(NamedTuple):
    """What became of the requests of a finished run, without its iterations."""

    manifest: dict[str, Any]
    summary: dict[str, Any]
    requests: "pyarrow.Table"


def load_outcome(path: Path) -> RunOutcome:
    """Manifest, summary and requests of the run in the directory `path`.

    Raises:
        ResultError: as `load_run`.
    """
    manifest = load_manifest(path)
    if not manifest.get("complete"):
        why = manifest.get("stopped") or "it was broken off, or still runs"
        raise ResultError(f"{path} is incomplete: {why}; give a run that came to its end")
    return RunOutcome(manifest, _json(path / "summary.json"), load_table(path / "requests.parquet"))


def load_manifest(path: Path) -> dict[str, Any]:
    """The manifest of the run in the directory `path`, which may be incomplete.

    Raises:
        ResultError: no run is there, it is of another version, or its manifest is damaged.
    """
    if not (path / MANIFEST).is_file():
        if not path.is_dir():
            raise ResultError(f"{path}: no such run directory; check the path")
        raise not_a_run(path)
    manifest = _json(path / MANIFEST)
    version = manifest.get("schema_version")
    if version != SCHEMA_VERSION:
        raise ResultError(
            f"{path} has schema version {version}, this schedsim reads {SCHEMA_VERSION}; "
            "run it again with this version"
        )
    for name in ("config", "trace"):
        if not isinstance(manifest.get(name), dict):
            raise ResultError(f"{path / MANIFEST} holds no {name!r}; run it again")
    return manifest


def load_table(path: Path) -> "pyarrow.Table":
    """The table in a file of a run.

    Raises:
        ResultError: it is absent or damaged.
    """
    import pyarrow
    import pyarrow.parquet

    _check_there(path)
    try:
        return pyarrow.parquet.read_table(path, use_threads=False)
    except (OSError, pyarrow.ArrowInvalid) as error:
        reason = str(error).splitlines()[0]
        raise ResultError(f"{path} cannot be read: {reason}; run it again") from None


def _json(path: Path) -> dict[str, Any]:
    _check_there(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ResultError(f"{path} cannot be read: {error}; run it again") from None
    if not isinstance(content, dict):
        raise ResultError(f"{path} is no JSON object; run it again")
    return content


def _check_there(path: Path) -> None:
    if not path.is_file():
        raise ResultError(f"{path} does not exist; run it again")


def float_column(table: "pyarrow.Table", name: str) -> Floats:
    """A column of a run's table; NaN where it holds nothing."""
    values: Floats = table.column(name).to_numpy().astype(np.float64)
    return values


def step_ends(steps: "pyarrow.Table") -> Floats:
    """When each row of a run's steps ended: the last end of those that it stands for."""
    ends = steps.column("end").combine_chunks()
    last = ends.offsets.to_numpy()[1:] - 1
    values: Floats = ends.values.to_numpy().astype(np.float64)[last]
    return values
