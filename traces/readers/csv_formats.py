"""The CSV traces: Azure, BurstGPT, Vidur, length pairs, and tables in our own column names."""

from dataclasses import dataclass, field

import numpy as np

from schedsim.traces.readers.csv_table import Kind, Table, read_table
from schedsim.traces.readers.plain import (
    ARRIVAL_NAMES,
    OUTPUT_NAMES,
    PROMPT_NAMES,
    first_known,
)
from schedsim.traces.readers.rows import Rows, encode_names
from schedsim.traces.readers.source_file import SourceFile


@dataclass(frozen=True, slots=True)
class CsvFormat:
    """One layout: which column holds what. `time_kind` says how the arrival is written, and
    `time_divisor` how many of its units make a second."""

    name: str
    prompt: str
    output: str
    time: str | None = None
    time_kind: Kind = "number"
    time_divisor: float = 1.0
    session: str | None = None
    others: tuple[str, ...] = field(default=())

    @property
    def required(self) -> tuple[str, ...]:
        """The names a header must hold to be of this layout."""
        named = (self.time, self.prompt, self.output, *self.others)
        return tuple(name for name in named if name is not None)

    def fits(self, header: list[str]) -> bool:
        """Whether a header has all the required names."""
        return all(name in header for name in self.required)


CSV_FORMATS = (
    CsvFormat("azure", "ContextTokens", "GeneratedTokens", "TIMESTAMP", "datetime"),
    CsvFormat("azure-offset", "ContextTokens", "GeneratedTokens", "StartTimeOffset", "whole", 1e9),
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


def match_header(header: list[str], name: str | None = None) -> CsvFormat | None:
    """The layout called `name`, else the first whose columns the header has.

    A header of none of the published layouts may have the names of plain rows: layout `custom`.
    """
    for layout in CSV_FORMATS:
        if layout.name == name or (name is None and layout.fits(header)):
            return layout
    return _plain_layout(header) if name in (None, "custom") else None


def _plain_layout(header: list[str]) -> CsvFormat | None:
    prompt, output = first_known(PROMPT_NAMES, header), first_known(OUTPUT_NAMES, header)
    if prompt is None or output is None:
        return None
    time = first_known(ARRIVAL_NAMES, header)
    divisor = 1.0 if time is None else ARRIVAL_NAMES[time]
    return CsvFormat("custom", prompt, output, time, "number", divisor, session="session_id")


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
    if layout.name in ("azure", "custom") and len(wanted) < len(header):
        ignored = ", ".join(name for name in header if name not in wanted)
        rows.notes.append(f"fields not read: {ignored}")
    return rows


def _set_arrival(rows: Rows, table: Table, layout: CsvFormat) -> None:
    assert layout.time is not None, "a layout without times has no arrival"
    times = table.columns[layout.time]
    if layout.time_kind == "datetime":
        rows.start_ns = int(times.min())
        rows.columns["arrival"] = (times - rows.start_ns) / 1e9
    else:
        rows.columns["arrival"] = times / layout.time_divisor
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
