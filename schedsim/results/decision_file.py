"""`DecisionFile`: a decision record to read, of a run or of another scheduler's recording."""

import gzip
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from schedsim.errors import ResultError
from schedsim.results.directory import MANIFEST

DECISIONS = "decisions.jsonl.gz"
GZIP_MAGIC = b"\x1f\x8b"

_LISTS = ("arrived", "preempted", "sampled", "finished", "running", "waiting")


class DecisionFile:
    """A decision record: `meta` in its first line, then one record an iteration.

    `name` is what it is called, by default its path. `lines` streams the rest.
    """

    def __init__(self, path: Path, name: str | None = None) -> None:
        """Open the record at `path`: a run directory, a .jsonl or a .jsonl.gz file.

        Raises:
            ResultError: there is none, or its first line holds no `meta`; says what to do.
        """
        self.name = str(path) if name is None else name
        self.path = _record_of(path)
        first = next(self._lines(), None)
        meta = None if first is None else parse(self.path, 1, first).get("meta")
        if not isinstance(meta, dict):
            raise ResultError(
                f"{self.path}, line 1: no 'meta', so this is neither a decision record, which "
                "schedsim run --decisions writes, nor a recording"
            )
        self.meta: dict[str, Any] = meta

    @property
    def heading(self) -> str:
        """Its name and the policy by which it was decided, as its `meta` says, in two lines."""
        return f"{self.name}\n{self.meta.get('policy', 'unknown policy')}"

    def lines(self) -> Iterator[tuple[int, str]]:
        """Number and text of each line that holds an iteration, from the beginning.

        Raises:
            ResultError: the file is damaged or ends too early; names the line.
        """
        numbered = enumerate(self._lines(), start=1)
        next(numbered)
        yield from numbered

    def record(self, number: int, line: str) -> dict[str, Any]:
        """The record in a line.

        Raises:
            ResultError: it is none; names the line.
        """
        record = parse(self.path, number, line)
        wrong = _wrong_field(record)
        if wrong is not None:
            raise ResultError(
                f"{self.path}, line {number}: {wrong!r} is missing or not of a decision record"
            )
        return record

    def _lines(self) -> Iterator[str]:
        number = 0
        try:
            with _open_text(self.path) as lines:
                for line in lines:
                    number += 1
                    yield line
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ResultError(
                f"{self.path}: the gzip stream is damaged after {number:,} whole lines ({error}); "
                "write or copy it again"
            ) from None
        except UnicodeDecodeError as error:
            raise ResultError(f"{self.path}, line {number + 1}: no UTF-8 text ({error})") from None


def parse(path: Path, number: int, line: str) -> dict[str, Any]:
    """The JSON object in a line.

    Raises:
        ResultError: it is none; names the line.
    """
    try:
        value = json.loads(line)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ResultError(f"{path}, line {number}: no JSON: {error}") from None
    if not isinstance(value, dict):
        raise ResultError(f"{path}, line {number}: a {type(value).__name__}, not an object")
    return value


def _record_of(path: Path) -> Path:
    if not path.is_dir():
        if not path.exists():
            raise ResultError(f"{path}: no such run or file; check the path")
        return path
    if (path / DECISIONS).is_file():
        return path / DECISIONS
    if (path / MANIFEST).is_file():
        raise ResultError(f"{path} holds no {DECISIONS}; run it again with --decisions")
    raise not_a_run(path)


def not_a_run(path: Path) -> ResultError:
    """The error for a directory that holds no run; names the runs below it, if any."""
    found = [*path.glob(f"*/{MANIFEST}"), *path.glob(f"*/*/{MANIFEST}")]
    runs = sorted(str(manifest.parent.relative_to(path)) for manifest in found)
    hint = f"name one of the runs in it: {', '.join(runs)}" if runs else "check the path"
    return ResultError(f"{path} is not a run directory, it holds no {MANIFEST}; {hint}")


def _open_text(path: Path) -> Any:
    with path.open("rb") as raw:
        is_gzip = raw.read(2) == GZIP_MAGIC
    opener: Any = gzip.open if is_gzip else open
    return opener(path, "rt", encoding="utf-8")


def _wrong_field(record: dict[str, Any]) -> str | None:
    """The first field that does not look as `DecisionWriter` and the recordings write it."""
    scheduled, blocks = record.get("scheduled"), record.get("blocks")
    if not isinstance(scheduled, list) or not all(
        isinstance(entry, list) and len(entry) == 4 for entry in scheduled
    ):
        return "scheduled"
    if not isinstance(blocks, dict) or not all(isinstance(b, list) for b in blocks.values()):
        return "blocks"
    return next((name for name in _LISTS if not isinstance(record.get(name), list)), None)
