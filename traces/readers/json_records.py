"""JSON objects of a file, one a line or in one document, and fields of them with checks."""

import json
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from schedsim.errors import TraceError
from schedsim.traces.readers.source_file import SourceFile, shorten
from schedsim.traces.trace import IntColumn

_INT64 = 2**63
_ROW_FIX = "correct the value or take the row out"


class Record(NamedTuple):
    """One JSON object and where it stands: line `number` of the file, or item of its list."""

    number: int
    fields: dict[str, Any]


class Records(NamedTuple):
    """All JSON objects of a file; `unit` is what their numbers count."""

    items: Iterator[Record]
    first: dict[str, Any]
    unit: str


def read_records(file: SourceFile) -> Records:
    """The objects of a JSON-lines file, or of one document (an object or a list of them).

    A document may be pretty-printed over many lines. JSON lines are parsed as they are consumed.

    Raises:
        TraceError: not JSON, with the line; a row that is not an object.
    """
    number, text = _first_line(file.data)
    try:
        first = json.loads(text)
    except (ValueError, RecursionError) as error:
        if text.rstrip().endswith(b"}") and text.lstrip().startswith(b"{"):
            raise _not_json(file, number, text, error) from None
        return _read_document(file)
    if isinstance(first, list):
        return _read_document(file)
    return Records(_parse_lines(file), _as_object(file, "line", number, first), "line")


def _first_line(data: bytes) -> tuple[int, bytes]:
    start = len(data) - len(data.lstrip())
    line = data.count(b"\n", 0, start) + 1
    return line, data[start:].split(b"\n", 1)[0]


def _parse_lines(file: SourceFile) -> Iterator[Record]:
    for number, text in enumerate(file.data.split(b"\n"), start=1):
        if not text.strip():
            continue
        try:
            value = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise _not_json(file, number, text, error) from None
        yield Record(number, _as_object(file, "line", number, value))


def _read_document(file: SourceFile) -> Records:
    try:
        document = json.loads(file.data)
    except (ValueError, RecursionError) as error:
        line = getattr(error, "lineno", 1)
        raise TraceError(
            f"{file.path}, line {line}: is not valid JSON ({error}); "
            "write one object a line, or one whole document"
        ) from None
    values = document if isinstance(document, list) else [document]
    if not values:
        raise TraceError(f"{file.path} holds an empty list; a trace needs at least one request")
    records = [
        Record(number, _as_object(file, "item", number, value))
        for number, value in enumerate(values, start=1)
    ]
    return Records(iter(records), records[0].fields, "item")


def _not_json(file: SourceFile, line: int, text: bytes, error: Exception) -> TraceError:
    shown = shorten(text.decode(errors="replace"))
    return TraceError(
        f"{file.path}, line {line}: {shown} is not valid JSON ({error}); "
        "correct the line or take it out"
    )


def _as_object(file: SourceFile, unit: str, number: int, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise file.broken(f"{unit} {number}", "row", value, "is not a JSON object", _ROW_FIX)
    return value


class Fields:
    """Typed access to the fields of one object; `prefix` names it inside its record."""

    __slots__ = ("_fields", "_file", "_place", "_prefix")

    def __init__(self, file: SourceFile, place: str, fields: Any, prefix: str = "") -> None:
        self._file, self._place, self._prefix = file, place, prefix
        if not isinstance(fields, dict):
            raise self._error("", fields, "is not a JSON object")
        self._fields: dict[str, Any] = fields

    def __contains__(self, name: str) -> bool:
        return self._fields.get(name) is not None

    def _error(self, name: str, value: Any, problem: str) -> TraceError:
        field = f"{self._prefix}{name}".rstrip(".")
        return self._file.broken(self._place, field, value, problem, _ROW_FIX)

    def error(self, name: str, problem: str) -> TraceError:
        """An error about the field `name` of this object."""
        return self._error(name, self._fields.get(name), problem)

    def _get(self, name: str) -> Any:
        try:
            return self._fields[name]
        except KeyError:
            raise TraceError(
                f"{self._file.path}, {self._place}, {self._prefix}{name}: is missing; "
                "add the field or take the row out"
            ) from None

    def whole(self, name: str) -> int:
        """A whole number that fits 64 bits."""
        value = self._get(name)
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int:
            raise self._error(name, value, "is not a whole number")
        if not -_INT64 <= value < _INT64:
            raise self._error(name, value, "is out of range")
        return value

    def number(self, name: str) -> float:
        """A finite number."""
        value = self._get(name)
        if type(value) is not float and type(value) is not int:
            raise self._error(name, value, "is not a number")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self._error(name, value, "is not a finite number")
        return number

    def duration(self, name: str, default: float | None = None) -> float:
        """A finite number of at least 0; `default` where the field is absent or null."""
        if default is not None and name not in self:
            return default
        value = self.number(name)
        if value < 0:
            raise self._error(name, value, "is negative")
        return value

    def text(self, name: str) -> str:
        """A string; a whole number is taken as its digits."""
        value = self._get(name)
        if type(value) is int:
            return shorten(value)
        if not isinstance(value, str):
            raise self._error(name, value, "is not a string")
        return value

    def objects(self, name: str) -> list["Fields"]:
        """A list of objects."""
        value = self._get(name)
        if not isinstance(value, list):
            raise self._error(name, value, "is not a list")
        return [
            Fields(self._file, self._place, item, f"{self._prefix}{name}[{index}].")
            for index, item in enumerate(value)
        ]

    def block_ids(self, name: str) -> IntColumn:
        """A list of whole numbers."""
        value = self._get(name)
        if not isinstance(value, list):
            raise self._error(name, value, "is not a list")
        if not value:
            return np.zeros(0, dtype=np.int64)
        try:
            ids = np.array(value)
        except (ValueError, OverflowError):
            ids = np.zeros(0)
        if ids.ndim != 1 or ids.dtype.kind != "i":
            raise self._error(name, value, "is not a list of whole numbers below 2^63")
        return ids.astype(np.int64, copy=False)
