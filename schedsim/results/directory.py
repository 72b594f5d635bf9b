"""`RunDirectory`: the one place that writes result files, each whole or not at all."""

import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from schedsim.errors import OutputError

if TYPE_CHECKING:
    import pyarrow

MANIFEST = "manifest.json"


class RunDirectory:
    """A directory with the results of one run.

    Every file is written under a temporary name (`.NAME.partial`) and renamed when it is whole.
    The manifest is there from the start and says `complete: false` until `finish`.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        """Not for callers: use `create`."""
        self.path = path
        self._manifest = manifest

    @classmethod
    def create(cls, path: Path | str, manifest: dict[str, Any]) -> "RunDirectory":
        """Make the directory, parents included, and write the manifest as incomplete.

        Raises:
            OutputError: `path` is there and is not an empty directory, or cannot be written.
        """
        path = Path(path)
        with _reported(path, "choose another directory"):
            check_unused(path)
            path.mkdir(parents=True, exist_ok=True)
        directory = cls(path, dict(manifest))
        directory.write_json(MANIFEST, {**directory._manifest, "complete": False})
        return directory

    def finish(self, updates: dict[str, Any], complete: bool) -> None:
        """Rewrite the manifest with `updates`; `complete` says whether the run came to its end.

        Raises:
            OutputError: it cannot be written; the former manifest is still there.
        """
        self._manifest.update(updates)
        self.write_json(MANIFEST, {**self._manifest, "complete": complete})

    def write_json(self, name: str, content: Any) -> None:
        """Write indented JSON in the order of `content`; NaN and infinity are refused.

        Raises:
            OutputError: the file cannot be written.
        """
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        write_whole(self.path / name, text)

    def write_parquet(self, name: str, table: "pyarrow.Table") -> None:
        """Write a table; equal tables give equal bytes with one version of pyarrow.

        Raises:
            OutputError: the file cannot be written.
        """
        write_parquet(self.path / name, table)

    def open_gz(self, name: str) -> "GzipStream":
        """A gzip file to write piece by piece; it gets its name when it is closed.

        Raises:
            OutputError: the file cannot be written.
        """
        return GzipStream(self.path / name)


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path and rename it to `path`; on any exception remove it.

    Raises:
        OutputError: an OSError came out of the block or of the renaming.
    """
    temporary = _temporary(path)
    try:
        with _reported(path):
            yield temporary
            os.replace(temporary, path)
    except BaseException:
        _remove(temporary)
        raise


def write_whole(path: Path, text: str) -> None:
    """Write one file under a temporary name and rename it when it is whole.

    Raises:
        OutputError: it cannot be written.
    """
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_parquet(path: Path, table: "pyarrow.Table") -> None:
    """Write a table whole; equal tables give equal bytes with one version of pyarrow.

    Raises:
        OutputError: the file cannot be written.
    """
    import pyarrow.parquet

    with replacing(path) as temporary:
        pyarrow.parquet.write_table(table, temporary, compression="zstd", row_group_size=1 << 20)


def check_unused(path: Path) -> None:
    """Refuse a directory for results that is there and not empty.

    Raises:
        OutputError: it is one, a file, or nothing that can be looked into.
    """
    with _reported(path, "choose another directory"):
        if path.exists() and not path.is_dir():
            raise OutputError(f"{path} is a file; choose another directory for the results")
        if path.is_dir() and any(path.iterdir()):
            raise OutputError(
                f"{path} exists and is not empty; results are never overwritten: "
                "choose another directory, or remove this one"
            )


class GzipStream:
    """A gzip text file under a temporary name. `close` keeps it, `abort` drops it.

    Every method raises OutputError if the file cannot be written, and then it is aborted; from
    there on no method has an effect.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._temporary = _temporary(path)
        self._aborted = False
        # wbits 31: a gzip header with neither name nor time, so equal text gives equal bytes
        self._compressor = zlib.compressobj(6, zlib.DEFLATED, 31)
        with _reported(path):
            self._raw: IO[bytes] = open(self._temporary, "wb")  # noqa: SIM115

    def write(self, text: str) -> None:
        """Append text; no effect on an aborted file."""
        if self._aborted:
            return
        with self._kept_whole():
            self._raw.write(self._compressor.compress(text.encode()))

    def close(self) -> None:
        """Complete the file and give it its name; no effect on one that is closed."""
        if self._raw.closed:
            return
        with self._kept_whole():
            self._raw.write(self._compressor.flush())
            self._raw.close()
            os.replace(self._temporary, self._path)

    def abort(self) -> None:
        """Remove what was written; no effect on a file that is closed."""
        self._aborted = True
        with suppress(OSError):  # a full disk: what is left in the buffer is dropped on purpose
            self._raw.close()
        _remove(self._temporary)

    @contextmanager
    def _kept_whole(self) -> Iterator[None]:
        try:
            with _reported(self._path):
                yield
        except OutputError:
            self.abort()
            raise


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.partial")


def _remove(path: Path) -> None:
    with suppress(OSError):  # the error that brought us here is the one to tell
        path.unlink(missing_ok=True)


@contextmanager
def _reported(
    path: Path, advice: str = "free some space or choose another directory"
) -> Iterator[None]:
    """Turn an OSError into an OutputError that names the file, the cause and what to do."""
    try:
        yield
    except OSError as error:
        cause = error.strerror or str(error)
        raise OutputError(f"cannot write {path}: {cause}; {advice}") from error
