"""What `schedsim trace info` and `head` print: statistics and rows as tables or JSON."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Any

from rich.table import Table

from schedsim.traces.statistics import TokenStatistics, TraceStatistics
from schedsim.traces.trace import Trace

NOTE, ORIGIN = "note ", "made from"


def as_json(trace: Trace, statistics: TraceStatistics) -> dict[str, Any]:
    """The statistics of a trace and its source as plain values."""
    source = trace.source
    return {
        "name": source.name,
        "format": source.format,
        "sha256": source.sha256,
        "origin": source.origin,
        "columns": list(trace.columns()),
        "tenants": len(trace.tenant_names),
        **_plain(statistics),
        "notes": list(source.notes),
    }


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        fields = dataclasses.fields(value)
        return {field.name: _plain(getattr(value, field.name)) for field in fields}
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    return value


def info_table(traces: Iterable[tuple[Trace, TraceStatistics]]) -> Table:
    """One column a trace, one row a statistic; a row that no trace has is left out."""
    columns = [(trace.source.name, _lines(trace, statistics)) for trace, statistics in traces]
    table = Table(show_edge=False)
    table.add_column("")
    names = list(dict.fromkeys(name for _, lines in columns for name in lines))
    names.sort(key=lambda name: name.startswith((NOTE, ORIGIN)))  # the long ones last
    for title, _ in columns:
        table.add_column(title, overflow="fold")
    for name in names:
        table.add_row(name, *(lines.get(name, "-") for _, lines in columns))
    return table


def _lines(trace: Trace, statistics: TraceStatistics) -> dict[str, str]:
    lines = {
        "format": trace.source.format,
        "rows read": f"{statistics.rows_read:,}",
        "kept": f"{statistics.rows:,}",
    }
    for reason, count in statistics.dropped.items():
        lines[f"dropped: {reason}"] = f"{count:,}"
    lines |= _arrival_lines(statistics)
    lines["prompt tokens"] = _tokens(statistics.prompt)
    lines["output tokens"] = _tokens(statistics.output)
    if statistics.spearman is not None:
        lines["rank correlation"] = f"{statistics.spearman:.2f}"
    if (sessions := statistics.sessions) is not None:
        lines["sessions"] = (
            f"{sessions.sessions:,}, longest {sessions.longest:,}, "
            f"{sessions.follow_ups:,} follow-ups"
        )
        if sessions.think_mean_s is not None:
            lines["think time"] = f"mean {sessions.think_mean_s:.1f} s"
    if trace.tenant_names:
        lines["tenants"] = f"{len(trace.tenant_names):,}"
    if (prefix := statistics.prefix) is not None:
        lines["prefix blocks"] = (
            f"{prefix.blocks:,} of {prefix.block_size} tokens, {prefix.distinct_blocks:,} distinct"
        )
        lines["prefix hits"] = f"{prefix.token_hit_share:.1%} of prompt tokens, infinite cache"
    if trace.source.origin:
        lines[ORIGIN] = trace.source.origin
    for number, note in enumerate(trace.source.notes, start=1):
        lines[f"{NOTE}{number}"] = note
    return lines


def _arrival_lines(statistics: TraceStatistics) -> dict[str, str]:
    arrivals = statistics.arrivals
    if arrivals is None:
        return {"arrivals": "none; a run needs --arrivals"}
    lines = {"span": f"{arrivals.span_s:,.1f} s"}
    if arrivals.mean_rate is not None:
        lines["mean rate"] = f"{arrivals.mean_rate:.3g} req/s"
    peaks = " / ".join(f"{rate:.3g}" for rate in arrivals.peak_rate.values())
    widths = " / ".join(f"{width} s" for width in arrivals.peak_rate)
    lines["peak rate"] = f"{peaks} req/s in {widths}"
    if arrivals.iat_cv is not None:
        lines["gap CV"] = f"{arrivals.iat_cv:.2f}"
    if arrivals.iod:
        values = " / ".join(f"{value:.1f}" for value in arrivals.iod.values())
        widths = " / ".join(f"{width} s" for width in arrivals.iod)
        lines["count variance / mean"] = f"{values} in {widths}"
    return lines


def _tokens(tokens: TokenStatistics) -> str:
    percentiles = " / ".join(f"{value:,.0f}" for value in (tokens.p50, tokens.p95, tokens.p99))
    return f"mean {tokens.mean:,.1f}, p50 / p95 / p99 / max {percentiles} / {tokens.max:,}"


def rows_table(trace: Trace, rows: int) -> Table:
    """The first rows of a trace, a column of the trace a column."""
    table = Table(show_edge=False)
    table.add_column("row", justify="right")
    columns = trace.columns()
    for name in columns:
        table.add_column(name, justify="right")
    if trace.blocks is not None:
        table.add_column("blocks", overflow="fold")
    for row in range(min(rows, len(trace))):
        cells = [_cell(values[row].item()) for values in columns.values()]
        if trace.blocks is not None:
            start, end = trace.blocks.offsets[row : row + 2]
            cells.append(_chain(trace.blocks.ids[start:end].tolist()))
        table.add_row(str(row), *cells)
    return table


def _cell(value: float | int) -> str:
    return f"{value:.6f}" if isinstance(value, float) else str(value)


def _chain(ids: list[int]) -> str:
    shown = " ".join(map(str, ids[:4]))
    return f"{shown} … ({len(ids)})" if len(ids) > 4 else shown
