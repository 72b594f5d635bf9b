"""`IterationRecord`: what one iteration decided and brought, by trace row; and it as a text."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from schedsim.traces.trace import Trace

SHOWN = 40
"""Iterations that a timeline shows, the last ones."""


class Entry(NamedTuple):
    """Tokens of one request in an iteration; `context` are computed before it."""

    request: int
    tokens: int
    kind: str
    context: int


@dataclass(slots=True)
class IterationRecord:
    """One iteration; requests are rows of the trace whatever their ids were."""

    iteration: int
    decided_at: float
    arrived: list[int]
    scheduled: list[Entry]
    preempted: list[int]
    transfers: list[tuple[int, str, list[tuple[int, int]]]]
    blocks: dict[int, list[int]]
    free_blocks: int
    total_blocks: int
    running: list[int]
    waiting: list[int]
    visible: list[tuple[Any, ...]]
    sampled: list[int] = field(default_factory=list)
    finished: list[int] = field(default_factory=list)

    def decision(self) -> str:
        """All that was decided, in one line; equal decisions are equal lines."""
        return (
            f"decided at {self.decided_at!r} s: runs {_entries(self.scheduled)}; "
            f"preempts {_names(self.preempted)}; copies {self.transfers}; waiting "
            f"{_names(self.waiting)}; blocks {self.blocks}, {self.free_blocks} free"
        )


def describe_trace(trace: Trace) -> list[str]:
    """A line a request."""
    lines = []
    for row in range(len(trace)):
        told = [f"prompt {trace.prompt_tokens[row]}", f"output {trace.output_tokens[row]}"]
        if trace.max_output_tokens is not None:
            told[1] += f" of at most {trace.max_output_tokens[row]}"
        if trace.parent is not None and trace.parent[row] >= 0:
            told.append(f"follows r{trace.parent[row]}")
        else:
            told.insert(0, f"arrives {trace.arrival[row]:.3f} s")
        for name in ("tenant", "priority", "ttft_slo", "tpot_slo", "predicted_output"):
            column = getattr(trace, name)
            if column is not None:
                told.append(f"{name} {column[row]}")
        if trace.blocks is not None:
            chain = trace.blocks.ids[trace.blocks.offsets[row] : trace.blocks.offsets[row + 1]]
            if len(chain):
                told.append(f"blocks {chain.tolist()}")
        lines.append(f"r{row}: {', '.join(told)}")
    return lines


def draw_timeline(trace: Trace, records: Sequence[IterationRecord]) -> str:
    """The requests, then a line an iteration: who ran how many tokens, who waited, free blocks.

    `*` marks who emitted a token.
    """
    lines = [f"  {line}" for line in describe_trace(trace)]
    rows = [("iteration", "decided at", "runs", "waits", "free blocks", "")]
    if len(records) > SHOWN:
        rows.append(("…", "", f"{len(records) - SHOWN} iterations", "", "", ""))
    for record in records[-SHOWN:]:
        runs = " ".join(
            f"r{entry.request}+{entry.tokens}{'*' if entry.request in record.sampled else ''}"
            for entry in record.scheduled
        )
        rows.append(
            (
                str(record.iteration),
                f"{record.decided_at:.3f} s",
                runs or "nothing",
                _names(record.waiting) or "-",
                f"{record.free_blocks} of {record.total_blocks}",
                _events(record),
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(6)]
    for row in rows:
        cells = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        lines.append(f"  {'  '.join(cells).rstrip()}")
    return "\n".join(lines)


def _events(record: IterationRecord) -> str:
    told = []
    for what, requests in (
        ("arrived", record.arrived),
        ("admitted", [entry.request for entry in record.scheduled if entry.kind != "run"]),
        ("preempted", record.preempted),
        ("finished", record.finished),
    ):
        if requests:
            told.append(f"{what} {_names(requests)}")
    return ", ".join(told)


def _entries(entries: Sequence[Entry]) -> str:
    return " ".join(f"r{e.request}+{e.tokens} ({e.kind} at {e.context})" for e in entries)


def _names(requests: Sequence[int]) -> str:
    return " ".join(f"r{request}" for request in requests)
