"""The CSV traces: Azure, BurstGPT, Vidur, length pairs, and tables in our own column names."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from schedsim.traces.readers.csv_table import Kind, Table, read_table
from schedsim.traces.readers.rows import Rows, encode_names
from schedsim.traces.readers.source_file import SourceFile

NANOSECOND = 1e-9


@dataclass(frozen=True, slots=True)
class CsvFormat:
    """One layout: which column holds what. `time_kind` says how the arrival is written."""

    name: str
    prompt: str
    output: str
    time: str | None = None
    time_kind: Kind = "number"
    time_scale: float = 1.0
    session: str | None = None
    others: tuple[str, ...] = field(default=())

    @property
    def required(self) -> tuple[str, ...]:
        """The names a header must hold to be of this layout."""
        named = (self.time, self.prompt, self.output, *self.others)
        return tuple(name for name in named if name is not None)


CSV_FORMATS = (
    CsvFormat("azure", "ContextTokens", "GeneratedTokens", "TIMESTAMP", "datetime"),
    CsvFormat(
        "azure-offset", "ContextTokens", "GeneratedTokens", "StartTimeOffset", "whole", NANOSECOND
    ),
    CsvFormat(
        "burstgpt",
        "Request tokens",
        "Response tokens",
        "Timestamp",
        session="Session ID",
        others=("Model", "Log Type"),
    ),
    CsvFormat("vidur", "num_prefill_tokens", "num_decode_tokens", "arrived_at"),
    CsvFormat("lengths", "num_prefill_tokens", "num_decode_tokens"),
)


def match_header(header: list[str]) -> CsvFormat | None:
    """The first layout whose columns the header has; the columns are found by name."""
    for layout in CSV_FORMATS:
        if all(name in header for name in layout.required):
            return layout
    return None


def read_csv(file: SourceFile, header: list[str], layout: CsvFormat) -> Rows:
    """Read a file of one layout.

    Raises:
        TraceError: a broken cell, with its line, column and value.
    """
    wanted: dict[str, Kind] = {layout.prompt: "whole", layout.output: "whole"}
    if layout.time is not None:
        wanted[layout.time] = layout.time_kind
    if layout.session in header and layout.session is not None:
        wanted[layout.session] = "text"
    table = read_table(file, wanted)
    rows = Rows(
        columns={
            "prompt_tokens": table.columns[layout.prompt],
            "output_tokens": table.columns[layout.output],
        },
        lines=table.lines,
        fields={"prompt_tokens": layout.prompt, "output_tokens": layout.output},
        has_arrivals=layout.time is not None,
    )
    if layout.time is not None and len(table.lines):
        rows.fields["arrival"] = layout.time
        _set_arrival(rows, table, layout)
    if layout.session in table.columns and layout.session is not None:
        session, _ = encode_names([name.strip() for name in table.columns[layout.session]])
        rows.columns["session"] = session
    return rows


def _set_arrival(rows: Rows, table: Table, layout: CsvFormat) -> None:
    assert layout.time is not None, "a layout without times has no arrival"
    times = table.columns[layout.time]
    if layout.time_kind == "datetime":
        rows.start_ns = int(times.min())
        rows.columns["arrival"] = (times - rows.start_ns) / 1e9
    elif layout.time_kind == "whole":
        rows.columns["arrival"] = times * layout.time_scale
    else:
        rows.columns["arrival"] = times
    if layout.name == "burstgpt":
        _start_at_first(rows)


def _start_at_first(rows: Rows) -> None:
    """BurstGPT counts from midnight of the recording's first day; a trace starts with its rows."""
    arrival = rows.columns["arrival"]
    first = float(arrival.min())
    if first > 0 and np.isfinite(first):
        rows.columns["arrival"] = arrival - first
        rows.notes.append(f"time 0 is {first:,g} s of the file's own clock")
    if (arrival == np.floor(arrival)).all() and len(np.unique(arrival)) < len(arrival):
        rows.tick_s = 1.0


CSV_NAMES: Mapping[str, CsvFormat] = {layout.name: layout for layout in CSV_FORMATS}
