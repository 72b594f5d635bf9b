"""JSON rows of token counts under the names in use, and `sub_requests` sessions among them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from schedsim.traces.readers.json_records import Fields, Records
from schedsim.traces.readers.rows import Rows, encode_names, int_column
from schedsim.traces.readers.source_file import SourceFile

PROMPT_NAMES = (
    "prompt_tokens",
    "input_tokens",
    "input_length",
    "input_toks",
    "num_prefill_tokens",
    "prompt_len",
)
OUTPUT_NAMES = (
    "output_tokens",
    "output_length",
    "output_toks",
    "num_decode_tokens",
    "completion_tokens",
    "output_len",
)
# Each name says its unit or is in seconds; a bare `timestamp` says neither and is not among them.
ARRIVAL_NAMES: Mapping[str, float] = {
    "arrival": 1.0,
    "arrival_s": 1.0,
    "arrived_at": 1.0,
    "arrival_time": 1.0,
    "arrival_ms": 1e3,
    "arrival_time_ns": 1e9,
}
_SUB_REQUESTS = "sub_requests"
_KNOWN = {
    *PROMPT_NAMES,
    *OUTPUT_NAMES,
    *ARRIVAL_NAMES,
    _SUB_REQUESTS,
    "session_id",
    "tenant",
    "max_output_tokens",
}


def first_known(names: tuple[str, ...] | Mapping[str, float], keys: Any) -> str | None:
    """The first of `names` that `keys` has."""
    return next((name for name in names if name in keys), None)


def looks_plain(first: Mapping[str, Any]) -> bool:
    """Whether a row has token counts, or sub-requests, under names known here."""
    has_counts = first_known(PROMPT_NAMES, first) and first_known(OUTPUT_NAMES, first)
    return bool(has_counts) or _SUB_REQUESTS in first


class _PlainRows:
    def __init__(self, first: Mapping[str, Any]) -> None:
        subs = first.get(_SUB_REQUESTS)
        counts = subs[0] if isinstance(subs, list) and subs else first
        keys = counts if isinstance(counts, dict) else {}
        self.prompt_name = first_known(PROMPT_NAMES, keys) or PROMPT_NAMES[0]
        self.output_name = first_known(OUTPUT_NAMES, keys) or OUTPUT_NAMES[0]
        self.arrival_name = first_known(ARRIVAL_NAMES, first)
        self.has_limits = "max_output_tokens" in first
        self.lines: list[int] = []
        self.prompt: list[int] = []
        self.output: list[int] = []
        self.limit: list[int] = []
        self.arrival: list[float] = []
        self.session: list[str] = []
        self.tenant: list[str] = []
        self.parent: list[int] = []
        self.think: list[float] = []

    def add(self, number: int, fields: Fields) -> None:
        """One request, or one session of requests that wait for each other."""
        arrival = 0.0
        if self.arrival_name is not None:
            arrival = fields.number(self.arrival_name) / ARRIVAL_NAMES[self.arrival_name]
        session = fields.text("session_id") if "session_id" in fields else ""
        tenant = fields.text("tenant") if "tenant" in fields else ""
        if _SUB_REQUESTS not in fields:
            self._add_one(number, fields, arrival, session, tenant, -1, 0.0)
            return
        before, think = -1, 0.0
        for call in fields.objects(_SUB_REQUESTS):
            name = session or f"line {number}"
            self._add_one(number, call, arrival, name, tenant, before, think)
            before = len(self.lines) - 1
            think = call.duration("tool_duration_ns", 0.0) / 1e9
            arrival += think

    def _add_one(
        self,
        number: int,
        fields: Fields,
        arrival: float,
        session: str,
        tenant: str,
        parent: int,
        think: float,
    ) -> None:
        self.lines.append(number)
        self.prompt.append(fields.whole(self.prompt_name))
        self.output.append(fields.whole(self.output_name))
        if self.has_limits:
            limit = fields.whole("max_output_tokens")
            if not 1 <= limit < 2**31:
                raise fields.error("max_output_tokens", "is not between 1 and 2^31 - 1")
            self.limit.append(limit)
        self.arrival.append(arrival)
        self.session.append(session)
        self.tenant.append(tenant)
        self.parent.append(parent)
        self.think.append(think)

    def rows(self, unit: str) -> Rows:
        rows = Rows(
            columns={
                "prompt_tokens": int_column(self.prompt),
                "output_tokens": int_column(self.output),
            },
            lines=int_column(self.lines),
            unit=unit,
            fields={"prompt_tokens": self.prompt_name, "output_tokens": self.output_name},
            has_arrivals=self.arrival_name is not None,
        )
        closed_loop = any(parent >= 0 for parent in self.parent)
        if self.arrival_name is not None or closed_loop:
            rows.columns["arrival"] = np.array(self.arrival, dtype=np.float64)
            rows.fields["arrival"] = self.arrival_name or "sub_requests"
        if self.has_limits:
            rows.columns["max_output_tokens"] = int_column(self.limit)
        if any(self.session):
            rows.columns["session"] = encode_names(self.session)[0]
        if any(self.tenant):
            rows.columns["tenant"], rows.tenant_names = encode_names(self.tenant)
        if closed_loop:
            rows.columns["parent"] = int_column(self.parent)
            rows.columns["think_s"] = np.array(self.think, dtype=np.float64)
        return rows


def read_plain(file: SourceFile, records: Records) -> Rows:
    """Rows of token counts with an optional arrival, session, tenant and output limit.

    A row with `sub_requests` is a session in closed loop: each call waits for the one before it and
    its `tool_duration_ns`. The names of the first row hold for the file; other fields are named in
    the notes and not read.

    Raises:
        TraceError: a broken or missing field.
    """
    collected = _PlainRows(records.first)
    for number, fields in records.items:
        collected.add(number, Fields(file, f"{records.unit} {number}", fields))
    rows = collected.rows(records.unit)
    ignored = [name for name in records.first if name not in _KNOWN]
    if ignored:
        rows.notes.append(f"fields not read: {', '.join(ignored)}")
    return rows
