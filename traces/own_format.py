"""What our own Parquet and JSON-lines files hold beside the columns: one metadata object."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from schedsim.errors import TraceError
from schedsim.traces.trace import COLUMNS, Trace, TraceSource

KEY = "schedsim_trace"  # the Parquet metadata key, and the field that opens a JSON-lines header
VERSION = 1
BLOCKS = "blocks"


@dataclass(frozen=True, slots=True)
class Metadata:
    """Everything of a trace that is not a column."""

    rows: int
    columns: tuple[str, ...]
    has_arrivals: bool
    tenant_names: tuple[str, ...]
    block_size: int | None
    rows_read: int
    dropped: Mapping[str, int]
    notes: tuple[str, ...]
    start_ns: int | None
    origin: str

    def source(self, name: str, sha256: str) -> TraceSource:
        """The source of a trace that was read from our own file `name`."""
        return TraceSource(
            name=name,
            format="schedsim",
            sha256=sha256,
            rows_read=self.rows_read,
            dropped=self.dropped,
            notes=self.notes,
            start_ns=self.start_ns,
            origin=self.origin,
        )


def describe_origin(source: TraceSource) -> str:
    """The first-hand source in one line: name, format and hash."""
    if source.origin:
        return source.origin
    digest = f", sha256 {source.sha256}" if source.sha256 else ""
    return f"{source.name} ({source.format}{digest})"


def dump_metadata(trace: Trace) -> str:
    """The metadata of `trace` as one JSON object on one line."""
    source = trace.source
    return json.dumps(
        {
            KEY: VERSION,
            "rows": len(trace),
            "columns": list(trace.columns()),
            "has_arrivals": trace.has_arrivals,
            "tenant_names": list(trace.tenant_names),
            "block_size": None if trace.blocks is None else trace.blocks.block_size,
            "rows_read": source.rows_read,
            "dropped": dict(source.dropped),
            "notes": list(source.notes),
            "start_ns": source.start_ns,
            "origin": describe_origin(source),
        }
    )


def parse_metadata(path: str, value: Any) -> Metadata:
    """Check a metadata object.

    Raises:
        TraceError: not an object of ours, or of a newer version.
    """
    if not isinstance(value, dict) or KEY not in value:
        raise TraceError(f"{path}: has no {KEY!r} metadata; it was not written by schedsim")
    if value[KEY] != VERSION:
        raise TraceError(
            f"{path}: is of version {value[KEY]!r}, this schedsim reads version {VERSION}; "
            "convert the original trace again"
        )
    for name, kind in _METADATA_TYPES.items():
        if name not in value or not isinstance(value[name], kind):
            shown = repr(value.get(name, "missing"))[:60]
            raise TraceError(f"{path}, metadata, {name}: {shown} is not valid; convert again")
    unknown = [name for name in value["columns"] if name not in COLUMNS]
    lacking = [name for name in COLUMNS[:3] if name not in value["columns"]]
    if unknown or lacking:
        what = f"unknown {unknown[0]!r}" if unknown else f"no {lacking[0]!r}"
        raise TraceError(f"{path}, metadata, columns: {what}; convert the original trace again")
    return Metadata(
        rows=value["rows"],
        columns=tuple(value["columns"]),
        has_arrivals=value["has_arrivals"],
        tenant_names=tuple(map(str, value["tenant_names"])),
        block_size=value["block_size"],
        rows_read=value["rows_read"],
        dropped=MappingProxyType({str(k): int(v) for k, v in value["dropped"].items()}),
        notes=tuple(map(str, value["notes"])),
        start_ns=value["start_ns"],
        origin=value["origin"],
    )


_METADATA_TYPES: Mapping[str, type | tuple[type, ...]] = {
    "rows": int,
    "columns": list,
    "has_arrivals": bool,
    "tenant_names": list,
    "block_size": (int, type(None)),
    "rows_read": int,
    "dropped": dict,
    "notes": list,
    "start_ns": (int, type(None)),
    "origin": str,
}
