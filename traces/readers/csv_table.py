"""Columns of a CSV file by name; a broken cell is found with its exact line.

Small files are read cell by cell; large ones by pyarrow, which is many times faster but cannot
say where a cell is broken, so whatever it refuses is read cell by cell.
"""

import csv
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from schedsim.errors import TraceError
from schedsim.traces.readers.source_file import SourceFile
from schedsim.traces.trace import IntColumn

Kind = Literal["whole", "number", "datetime", "text"]
LARGE_BYTES = 8_000_000  # below this, importing pyarrow costs more than it saves

_WHOLE = re.compile(r"[+-]?[0-9]+(\.0*)?")
_DATETIME = re.compile(
    r"(\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:?\d\d)?", re.ASCII
)
_LONGEST_WHOLE = 40  # characters; int() on longer ones takes long, and they cannot fit


@dataclass(frozen=True, slots=True)
class Table:
    """Columns by name (`whole` and `datetime` int64, the latter in UTC nanoseconds; `number`
    float64; `text` a list of str) and the line of each row."""

    columns: dict[str, Any]
    lines: IntColumn


def read_header(file: SourceFile) -> list[str]:
    """The names in the first line; an empty list if the line cannot be a CSV header."""
    first = file.data.split(b"\n", 1)[0].rstrip(b"\r")
    try:
        return [name.strip() for name in next(csv.reader([first.decode()]), [])]
    except (UnicodeDecodeError, csv.Error):
        return []


def read_table(file: SourceFile, wanted: Mapping[str, Kind]) -> Table:
    """Read the columns `wanted` by name.

    Raises:
        TraceError: names the line, the column and the value of the first broken cell.
    """
    header = read_header(file)
    for name in wanted:
        if header.count(name) > 1:
            raise TraceError(f"{file.path}, line 1: column {name!r} stands twice; rename one")
    # pyarrow takes hexadecimal numbers, which nobody means here.
    if len(file.data) >= LARGE_BYTES and b"0x" not in file.data and b"0X" not in file.data:
        table = _read_fast(file, header, wanted)
        if table is not None:
            return table
    return _read_by_cell(file, header, wanted)


def _read_fast(file: SourceFile, header: list[str], wanted: Mapping[str, Kind]) -> Table | None:
    import pyarrow as pa
    import pyarrow.csv as pa_csv

    types = {
        "whole": pa.int64(),
        "number": pa.float64(),
        "datetime": _arrow_time_type(file.data),
        "text": pa.string(),
    }
    try:
        read = pa_csv.read_csv(
            pa.BufferReader(file.data),
            read_options=pa_csv.ReadOptions(skip_rows=1, column_names=header),
            parse_options=pa_csv.ParseOptions(ignore_empty_lines=False),
            convert_options=pa_csv.ConvertOptions(
                column_types={name: types[kind] for name, kind in wanted.items()},
                include_columns=list(wanted),
                null_values=[],
                strings_can_be_null=False,
            ),
        )
    except (pa.ArrowException, ValueError):
        return None
    columns: dict[str, Any] = {}
    for name, kind in wanted.items():
        column = read.column(name)
        if kind == "text":
            columns[name] = column.to_pylist()
        else:
            stored = column.cast(pa.int64()) if kind == "datetime" else column
            columns[name] = stored.to_numpy()
    return Table(columns, np.arange(2, read.num_rows + 2))


def _arrow_time_type(data: bytes) -> Any:
    import pyarrow as pa

    second_line = data.split(b"\n", 2)[1] if b"\n" in data else b""
    zoned = re.search(rb"\d\d:\d\d:\d\d[.\d]*(Z|[+-]\d\d)", second_line)
    return pa.timestamp("ns", tz="UTC" if zoned else None)


def _read_by_cell(file: SourceFile, header: list[str], wanted: Mapping[str, Kind]) -> Table:
    places = {name: header.index(name) for name in wanted}
    cells: dict[str, list[Any]] = {name: [] for name in wanted}
    parsers = [(name, places[name], _PARSERS[kind], cells[name]) for name, kind in wanted.items()]
    lines: list[int] = []
    for line, raw in enumerate(file.data.split(b"\n"), start=1):
        if line == 1 or not raw.strip():
            continue
        row = _split_line(file, line, raw)
        if len(row) != len(header):
            raise TraceError(
                f"{file.path}, line {line}: {len(row)} fields where the header names "
                f"{len(header)} ({','.join(header)}); complete the line or take it out"
            )
        for name, place, (parse, problem, fix), column in parsers:
            try:
                column.append(parse(row[place]))
            except ValueError:
                raise file.broken(f"line {line}", name, row[place], problem, fix) from None
        lines.append(line)
    columns = {name: _to_column(kind, cells[name]) for name, kind in wanted.items()}
    return Table(columns, np.array(lines, dtype=np.int64))


def _split_line(file: SourceFile, line: int, raw: bytes) -> list[str]:
    try:
        text = raw.decode().rstrip("\r")
    except UnicodeDecodeError:
        raise file.broken(
            f"line {line}", "text", raw, "is not UTF-8", "save the file as UTF-8"
        ) from None
    if '"' not in text:
        return text.split(",")
    try:
        return next(csv.reader([text], strict=True))
    except csv.Error as error:
        raise TraceError(f"{file.path}, line {line}: {error}; correct the quotes") from None


def _parse_whole(text: str) -> int:
    text = text.strip()
    if not _WHOLE.fullmatch(text) or len(text) > _LONGEST_WHOLE:
        raise ValueError
    return _fit(int(text.partition(".")[0]))


def _fit(value: int) -> int:
    if not -(2**63) <= value < 2**63:
        raise ValueError
    return value


def _parse_number(text: str) -> float:
    if "_" in text:  # Python's own notation, no one else's
        raise ValueError
    return float(text)


def _parse_datetime(text: str) -> int:
    match = _DATETIME.fullmatch(text.strip())
    if not match:
        raise ValueError
    seconds, fraction, zone = match.groups()
    when = datetime.fromisoformat(seconds + (zone or "+00:00"))
    whole = round(when.timestamp())
    return _fit(whole * 10**9 + int((fraction or "0").ljust(9, "0")))


def parse_datetime(text: str) -> int:
    """UTC nanoseconds since 1970 of an ISO 8601 time with up to nine fractional digits.

    A time without a zone is taken as UTC.

    Raises:
        ValueError: not such a time, or outside the years 1678 to 2261.
    """
    return _parse_datetime(text)


_PARSERS: Mapping[Kind, tuple[Any, str, str]] = {
    "whole": (_parse_whole, "is not a whole number", "correct the value or take the line out"),
    "number": (_parse_number, "is not a number", "correct the value or take the line out"),
    "datetime": (
        _parse_datetime,
        "is not a time like 2023-11-16 18:17:03.9799600",
        "correct the time or take the line out",
    ),
    "text": (str, "", ""),
}


def _to_column(kind: Kind, values: list[Any]) -> npt.NDArray[Any] | list[Any]:
    if kind == "text":
        return values
    return np.array(values, dtype=np.float64 if kind == "number" else np.int64)
