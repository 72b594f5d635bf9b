"""A trace file in memory: its bytes, decompressed, and the errors that point into it."""

import hashlib
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schedsim.errors import TraceError

GZIP_MAGIC = b"\x1f\x8b"
_SHOWN = 60  # characters of a broken value or header that a message repeats


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file's name, the hash of its bytes as stored, and its content after decompression."""

    path: Path
    sha256: str
    data: bytes

    @property
    def name(self) -> str:
        return self.path.name

    def broken(self, place: str, field: str, value: Any, problem: str, fix: str) -> TraceError:
        """The error for one broken value: file, place in it, field, value, problem and fix."""
        return TraceError(f"{self.path}, {place}, {field}: {shorten(value)} {problem}; {fix}")


def shorten(value: Any) -> str:
    """A value as an error message shows it."""
    shown = repr(value)
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…"


def load_file(path: Path) -> SourceFile:
    """Read a file whole; gzip is known by its magic bytes, not by the file's name.

    Raises:
        TraceError: no such file, a directory, no permission, an empty file, a damaged gzip stream.
    """
    try:
        stored = path.read_bytes()
    except FileNotFoundError:
        raise TraceError(f"{path}: no such file; check the path") from None
    except IsADirectoryError:
        raise TraceError(f"{path} is a directory; name one trace file in it") from None
    except (OSError, ValueError) as error:  # ValueError: a null byte in the path
        raise TraceError(f"{path} cannot be read: {error}") from None
    data = _gunzip(path, stored) if stored.startswith(GZIP_MAGIC) else stored
    data = data.removeprefix(b"\xef\xbb\xbf")
    if not data.strip():
        raise TraceError(f"{path} is empty; a trace needs at least one request")
    return SourceFile(path, hashlib.sha256(stored).hexdigest(), data)


def _gunzip(path: Path, stored: bytes) -> bytes:
    parts: list[bytes] = []
    rest = stored
    while rest.strip(b"\0"):  # padding after the last member is allowed
        member = zlib.decompressobj(wbits=31)
        try:
            parts.append(member.decompress(rest))
        except zlib.error as error:
            raise _damaged(path, parts, f"is damaged ({error})") from None
        if not member.eof:
            raise _damaged(path, parts, "ends too early")
        rest = member.unused_data
    return b"".join(parts)


def _damaged(path: Path, parts: list[bytes], what: str) -> TraceError:
    lines = sum(part.count(b"\n") for part in parts)
    return TraceError(
        f"{path}, line {lines + 1}: the gzip stream {what} after {lines:,} whole lines; "
        "download or compress the file again"
    )
