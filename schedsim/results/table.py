"""`render_table`: several policies side by side, for the terminal."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from schedsim.results.result import Result

if TYPE_CHECKING:
    from rich.table import Table

_ROWS = (
    ("requests finished", ("requests", "finished"), "count"),
    ("requests rejected", ("requests", "rejected"), "count"),
    ("requests failed", ("requests", "failed"), "count"),
    ("requests unfinished", ("requests", "unfinished"), "count"),
    ("makespan (s)", ("makespan_s",), "seconds"),
    ("requests/s", ("throughput", "whole", "requests_per_s"), "rate"),
    ("output tokens/s", ("throughput", "whole", "output_tokens_per_s"), "rate"),
    ("total tokens/s", ("throughput", "whole", "total_tokens_per_s"), "rate"),
    ("TTFT mean (s)", ("latency", "whole", "ttft_s", "mean"), "seconds"),
    ("TTFT p50 (s)", ("latency", "whole", "ttft_s", "p50"), "seconds"),
    ("TTFT p99 (s)", ("latency", "whole", "ttft_s", "p99"), "seconds"),
    ("TPOT mean (ms)", ("latency", "whole", "tpot_s", "mean"), "milliseconds"),
    ("TPOT p99 (ms)", ("latency", "whole", "tpot_s", "p99"), "milliseconds"),
    ("ITL p99 (ms)", ("latency", "whole", "itl_s", "p99"), "milliseconds"),
    ("end to end mean (s)", ("latency", "whole", "e2e_s", "mean"), "seconds"),
    ("queue mean (s)", ("latency", "whole", "queue_s", "mean"), "seconds"),
    ("goodput (share)", ("goodput", "whole", "share"), "share"),
    ("goodput (requests/s)", ("goodput", "whole", "requests_per_s"), "rate"),
    ("tokens by deadline", ("goodput", "whole", "token_deadline_attainment"), "share"),
    ("preemptions", ("preemptions",), "count"),
    ("prefix hits (tokens)", ("cached_tokens",), "count"),
    ("swapped blocks", ("swapped_blocks",), "count"),
    ("moved blocks", ("copied_blocks",), "count"),
    ("recomputed tokens", ("recomputed_tokens",), "count"),
    ("KV used", ("memory", "used"), "share"),
    ("KV reserved", ("memory", "reserved"), "share"),
    ("KV free, in pieces", ("memory", "external_waste"), "share"),
    ("stable", ("stable",), "verdict"),
)
_ONLY_IF_ANY = (
    "requests failed",
    "requests unfinished",
    "prefix hits (tokens)",
    "swapped blocks",
    "moved blocks",
    "KV free, in pieces",
)


def render_table(results: dict[str, Result]) -> "Table":
    """A column for each name in `results`; `-` where a figure does not exist.

    The rows on objectives appear only if a run has one.
    """
    from rich.table import Table

    table = Table(show_edge=False, pad_edge=False)
    table.add_column("whole run")
    for name in results:
        table.add_column(name, justify="right")
    for label, *cells in table_rows([result.summary for result in results.values()]):
        table.add_row(label, *cells)
    return table


def table_rows(summaries: Sequence[dict[str, Any]]) -> list[list[str]]:
    """The rows of that table, each its label and a cell for each summary."""
    rows = []
    for label, path, unit in _ROWS:
        values = [look_up(summary, path) for summary in summaries]
        optional = path[0] == "goodput" or label in _ONLY_IF_ANY
        if not optional or any(values):
            rows.append([label, *(format_figure(value, unit) for value in values)])
    return rows


def look_up(summary: dict[str, Any], path: Sequence[str]) -> Any:
    """The value at `path` in a summary; None where a section of it is."""
    value: Any = summary
    for key in path:
        value = None if value is None else value[key]
    return value


def format_figure(value: Any, unit: str) -> str:
    """A figure of a summary as tables show it; None as `-`."""
    if value is None:
        return "-"
    if unit == "verdict":
        return "yes" if value else "no"
    if unit == "count":
        return f"{value:,}"
    if unit == "share":
        return f"{100 * value:.1f} %"
    if unit == "milliseconds":
        return f"{1e3 * value:.2f}"
    return f"{value:,.3f}" if unit == "seconds" else f"{value:,.2f}"
