"""`SweepStore`: the directory of a sweep, in which a run stands whole or not at all."""

import fcntl
import json
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from schedsim.errors import OutputError, ResultError
from schedsim.results.directory import write_parquet, write_whole
from schedsim.results.manifest import PACKAGES, package_version
from schedsim.results.stored_run import load_table
from schedsim.results.summary import SCHEMA_VERSION
from schedsim.sweep.rows import Row, rows_table

SWEEP, RUNS, PARTS, LOCK = "sweep.json", "runs.parquet", "parts", ".lock"


class SweepStore:
    """The rows of a sweep, by key.

    While it runs, each row is a file of its own in `parts`, written under a temporary name and
    renamed, so that a process that is killed loses at most the runs in flight. At the end all rows
    go into `runs.parquet` and `parts` goes away; a sweep that is killed between the two has rows
    twice, which are the same. `sweep.json` says whether all runs of the configuration are there.
    One process at a time has a store; the system takes the lock back when that is killed.
    """

    def __init__(self, path: Path, config: dict[str, Any]) -> None:
        """Open the directory, or make it.

        Raises:
            OutputError: it holds something else, another process has it, or it cannot be written.
            ResultError: what is in it is damaged or of another version.
        """
        self.path = path
        self._config = config
        if path.exists() and not is_sweep(path) and (not path.is_dir() or any(path.iterdir())):
            raise OutputError(
                f"{path} exists and holds no sweep; results are never overwritten: choose another "
                "directory with --out"
            )
        try:
            path.mkdir(parents=True, exist_ok=True)
            self._lock = open(path / LOCK, "w")  # noqa: SIM115
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            (path / PARTS).mkdir(exist_ok=True)
        except BlockingIOError:
            raise OutputError(
                f"another process runs the sweep in {path}; wait for it, or choose another --out"
            ) from None
        except OSError as error:
            raise OutputError(
                f"cannot write {path}: {error.strerror}; choose another directory with --out"
            ) from error
        self.rows = {row["run"]: row for row in stored_rows(path)}

    def begin(self) -> None:
        """Say that the sweep of this configuration is under way.

        Raises:
            OutputError: it cannot be written.
        """
        self._describe(complete=False)

    def put(self, row: Row) -> None:
        """Keep a row.

        Raises:
            OutputError: it cannot be written.
        """
        text = json.dumps(row, ensure_ascii=False, allow_nan=False)
        write_whole(self.path / PARTS / f"{row['run']}.json", text)
        self.rows[row["run"]] = row

    def finish(self, keys: Sequence[str]) -> None:
        """Write the rows of these keys, in their order, as the dataset; all runs are there.

        Raises:
            OutputError: it cannot be written; the rows are still there.
        """
        write_parquet(self.path / RUNS, rows_table([self.rows[key] for key in keys]))
        self._describe(complete=True)
        shutil.rmtree(self.path / PARTS, ignore_errors=True)

    def close(self) -> None:
        """Let another process have the store."""
        self._lock.close()

    def _describe(self, complete: bool) -> None:
        content = {
            "schema_version": SCHEMA_VERSION,
            "config": self._config,
            "versions": {name: package_version(name) for name in PACKAGES},
            "complete": complete,
        }
        write_whole(self.path / SWEEP, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


def is_sweep(path: Path) -> bool:
    """Whether a sweep has written into the directory."""
    return (path / SWEEP).is_file() or (path / LOCK).is_file()


def load_sweep(path: Path) -> dict[str, Any]:
    """What `sweep.json` of a sweep says.

    Raises:
        ResultError: it is damaged or of another version.
    """
    try:
        content = json.loads((path / SWEEP).read_text(encoding="utf-8"))
        version = content.get("schema_version")
    except (OSError, ValueError, AttributeError) as error:
        raise ResultError(f"{path / SWEEP} cannot be read: {error}; run the sweep again") from None
    if version != SCHEMA_VERSION:
        raise ResultError(
            f"{path} has schema version {version}, this schedsim reads {SCHEMA_VERSION}; "
            "run the sweep again into another directory"
        )
    return dict(content)


def stored_rows(path: Path) -> list[Row]:
    """The rows of a sweep, which may still run, each once.

    Raises:
        ResultError: a file is damaged or of another version.
    """
    found: dict[str, Row] = {}
    if (path / SWEEP).is_file():
        load_sweep(path)
    if (path / RUNS).is_file():
        found = {row["run"]: row for row in load_table(path / RUNS).to_pylist()}
    for part in sorted((path / PARTS).glob("[!.]*.json")):
        with suppress(FileNotFoundError):  # a sweep that ends just now takes its parts away
            try:
                row = json.loads(part.read_text(encoding="utf-8"))
            except ValueError as error:
                raise ResultError(f"{part} cannot be read: {error}; remove it") from None
            found[row["run"]] = row
    return list(found.values())
