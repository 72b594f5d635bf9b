"""TraceLab rounds: one JSON object an LLM call, with ISO 8601 events; sessions in a closed loop."""

from typing import NamedTuple

import numpy as np

from schedsim.traces.readers.csv_table import parse_datetime
from schedsim.traces.readers.json_records import Fields, Records
from schedsim.traces.readers.rows import Rows, int_column
from schedsim.traces.readers.source_file import SourceFile

_INPUT_EVENTS = ("user_message", "tool_result")


class _Round(NamedTuple):
    session: str
    number: int
    line: int
    prompt: int
    output: int
    start_ns: int
    end_ns: int


def read_tracelab(file: SourceFile, records: Records) -> Rows:
    """Rounds: a call starts with the last of its input events and ends with its last event.

    A round waits for the one before it in its session; the time between them is its think time.
    Rows without events have no time and are dropped.

    Raises:
        TraceError: a broken field, or a round that stands twice.
    """
    rounds: list[_Round] = []
    without_events = 0
    for number, record in records.items:
        fields = Fields(file, f"{records.unit} {number}", record)
        times = _event_times(fields)
        if times is None:
            without_events += 1
            continue
        rounds.append(
            _Round(
                fields.text("session_id"),
                fields.whole("round_index"),
                number,
                fields.whole("input_tokens_total"),
                fields.whole("output_tokens"),
                *times,
            )
        )
    rows = _link(file, records.unit, rounds)
    if without_events:
        rows.dropped["no timing events"] = without_events
    return rows


def _event_times(fields: Fields) -> tuple[int, int] | None:
    """Start and end of the call in nanoseconds since 1970."""
    inputs: list[int] = []
    every: list[int] = []
    for event in fields.objects("timing_events"):
        try:
            time = parse_datetime(event.text("timestamp"))
        except ValueError:
            raise event.error("timestamp", "is not an ISO 8601 time") from None
        every.append(time)
        if event.text("event_type") in _INPUT_EVENTS:
            inputs.append(time)
    if not every:
        return None
    return max(inputs, default=min(every)), max(every)


def _link(file: SourceFile, unit: str, rounds: list[_Round]) -> Rows:
    """Sessions numbered by first appearance, each round linked to the one before it."""
    sessions: dict[str, int] = {}
    for each in rounds:
        sessions.setdefault(each.session, len(sessions))
    rounds.sort(key=lambda each: (sessions[each.session], each.number))
    first_ns = min((each.start_ns for each in rounds), default=0)
    arrival: list[float] = []
    parent: list[int] = []
    think: list[float] = []
    for row, each in enumerate(rounds):
        came = (each.start_ns - first_ns) / 1e9
        before = rounds[row - 1] if row else None
        if before is None or before.session != each.session:
            parent.append(-1)
            think.append(0.0)
        elif before.number == each.number:
            raise file.broken(
                f"{unit} {each.line}",
                "round_index",
                each.number,
                f"stands in {unit} {before.line} too, for the same session",
                "take one of the rows out",
            )
        else:
            parent.append(row - 1)
            think.append(max(0, each.start_ns - before.end_ns) / 1e9)
            came = max(came, arrival[row - 1])  # a clock that went back
        arrival.append(came)
    return Rows(
        columns={
            "arrival": np.array(arrival, dtype=np.float64),
            "prompt_tokens": int_column([each.prompt for each in rounds]),
            "output_tokens": int_column([each.output for each in rounds]),
            "session": int_column([sessions[each.session] for each in rounds]),
            "parent": int_column(parent),
            "think_s": np.array(think, dtype=np.float64),
        },
        lines=int_column([each.line for each in rounds]),
        unit=unit,
        fields={"prompt_tokens": "input_tokens_total"},
        start_ns=first_ns,
    )
