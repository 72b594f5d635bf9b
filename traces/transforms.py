"""Pure functions from traces to traces: arrivals, selection, scaling, merging, context limits.

Selections keep the books: the rows they take out are counted in `source.dropped` under their own
reason, so rows read = rows kept + dropped after every step. Where a request's parent is taken out,
the request waits for its nearest kept ancestor with the think times added up; where none is kept it
becomes a root that comes at its own arrival.
"""

import dataclasses
import math
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from schedsim.errors import ConfigError, TraceError
from schedsim.traces.combining import join_blocks, join_columns, join_sources
from schedsim.traces.selection import roots, take_blocks, take_rows
from schedsim.traces.trace import BoolColumn, FloatColumn, IntColumn, Trace, TraceSource


def _rebuild(trace: Trace, rows: IntColumn, **changes: Any) -> Trace:
    """The rows `rows` in that order, with columns or other fields replaced."""
    columns, blocks = take_rows(trace.columns(), trace.blocks, rows)
    fields: dict[str, Any] = {
        "source": trace.source,
        "has_arrivals": trace.has_arrivals,
        "tenant_names": trace.tenant_names,
        "blocks": blocks,
    }
    return Trace(**{**columns, **fields, **changes})


def _reorder(trace: Trace, arrival: FloatColumn, **changes: Any) -> Trace:
    """The trace with new arrivals, put in their order; equal times keep their order."""
    if trace.parent is not None:
        arrival = _not_before_parent(arrival, trace.parent)
    order = np.argsort(arrival, kind="stable")
    return _rebuild(trace, order, arrival=arrival[order], **changes)


def _not_before_parent(arrival: FloatColumn, parent: IntColumn) -> FloatColumn:
    """Raise arrivals that rounding put before the parent's."""
    arrival = arrival.copy()
    while True:
        early = np.flatnonzero((parent >= 0) & (arrival < arrival[parent]))
        if not len(early):
            return arrival
        arrival[early] = arrival[parent[early]]


def _noted(source: TraceSource, *notes: str, **changes: Any) -> TraceSource:
    return dataclasses.replace(source, notes=(*source.notes, *notes), **changes)


def _need_arrivals(trace: Trace, what: str) -> None:
    if not trace.has_arrivals:
        raise TraceError(
            f"{trace.source.name} has no arrival times, so {what} means nothing; "
            "give it an arrival process first"
        )


def keep_rows(trace: Trace, keep: BoolColumn, reason: str) -> Trace:
    """The rows where `keep` is true; the others are counted as dropped for `reason`.

    Raises:
        TraceError: no row is kept.
    """
    dropped = len(trace) - int(np.count_nonzero(keep))
    if not dropped:
        return trace
    if dropped == len(trace):
        raise TraceError(f"{trace.source.name}: no request is left ({dropped:,} {reason})")
    counts = dict(trace.source.dropped)
    counts[reason] = counts.get(reason, 0) + dropped
    source = dataclasses.replace(trace.source, dropped=MappingProxyType(counts))
    return _rebuild(trace, np.flatnonzero(keep), source=source)


def limit(trace: Trace, requests: int) -> Trace:
    """The first `requests` rows in order of arrival.

    Raises:
        ConfigError: `requests` is below 1.
    """
    if requests < 1:
        raise ConfigError(f"limit {requests} must be at least 1")
    return keep_rows(trace, np.arange(len(trace)) < requests, "beyond the limit")


def window(trace: Trace, start: float, end: float) -> Trace:
    """The requests with start <= arrival < end (seconds); time 0 becomes `start`.

    A follow-up whose conversation began before the window comes at its recorded time.

    Raises:
        ConfigError: not 0 <= start < end.
        TraceError: no request in the window, or no arrival times.
    """
    _need_arrivals(trace, "a window")
    if not 0 <= start < end:
        raise ConfigError(f"window {start:g} to {end:g} s: needs 0 <= start < end")
    inside = (trace.arrival >= start) & (trace.arrival < end)
    cut = keep_rows(trace, inside, "outside the window")
    began = cut.source.start_ns
    source = dataclasses.replace(
        cut.source, start_ns=None if began is None else began + round(start * 1e9)
    )
    return dataclasses.replace(cut, arrival=cut.arrival - start, source=source)


def thin(trace: Trace, fraction: float, rng: np.random.Generator) -> Trace:
    """Keep each session, or each request that has none, with probability `fraction`.

    Sessions stay whole: half a conversation is another workload.

    Raises:
        ConfigError: `fraction` outside (0, 1].
        TraceError: no request is left.
    """
    if not 0 < fraction <= 1:
        raise ConfigError(f"fraction {fraction} must be above 0 and at most 1")
    groups = np.arange(len(trace)) if trace.parent is None else roots(trace.parent)
    if trace.session is not None:
        in_session = trace.session >= 0
        groups = np.where(in_session, len(trace) + trace.session, groups)
    _, group = np.unique(groups, return_inverse=True)
    kept = rng.random(int(group.max()) + 1) < fraction
    return keep_rows(trace, kept[group], "thinned out")


def scale_time(trace: Trace, rate_scale: float) -> Trace:
    """Make the traffic `rate_scale` times as dense: arrivals are divided by it.

    In closed loop the starts of conversations are scaled; think times are kept, as people and tools
    do not get faster, and recorded arrivals of follow-ups keep their distance to the start.

    Raises:
        ConfigError: `rate_scale` is not a positive number.
        TraceError: no arrival times.
    """
    _need_arrivals(trace, "a scale of its rate")
    if not (math.isfinite(rate_scale) and rate_scale > 0):
        raise ConfigError(f"rate scale {rate_scale} must be a positive number")
    if rate_scale == 1:
        return trace
    source = _noted(trace.source, f"rate scaled by {rate_scale:g}", start_ns=None)
    if trace.parent is None:
        return dataclasses.replace(trace, arrival=trace.arrival / rate_scale, source=source)
    began = trace.arrival[roots(trace.parent)]
    return _reorder(trace, began / rate_scale + (trace.arrival - began), source=source)


def cap_think_times(trace: Trace, cap_s: float) -> Trace:
    """Cut think times longer than `cap_s` seconds to it; their number stands in the notes.

    Raises:
        ConfigError: the cap is not a number of at least 0.
        TraceError: the trace has no think times.
    """
    if not (math.isfinite(cap_s) and cap_s >= 0):
        raise ConfigError(f"think time cap {cap_s} s must be a number of at least 0")
    if trace.think_s is None:
        raise TraceError(f"{trace.source.name} has no think times to cap; leave the cap out")
    long = int(np.count_nonzero(trace.think_s > cap_s))
    source = _noted(trace.source, f"{long:,} think times cut to {cap_s:g} s")
    return dataclasses.replace(trace, think_s=np.minimum(trace.think_s, cap_s), source=source)


def over_context(trace: Trace, max_tokens: int, how: Literal["drop", "clip"] = "drop") -> Trace:
    """Handle requests whose prompt and output together exceed `max_tokens`.

    `drop` takes them out. `clip` cuts the prompt's end until the sum fits, down to 1 token, then
    the output; a note counts both. What the shortened prompt shares with others is kept.

    Raises:
        ConfigError: `max_tokens` is below 2, or `how` is unknown.
        TraceError: no request is left.
    """
    if max_tokens < 2:
        raise ConfigError(f"context of {max_tokens} tokens must be at least 2")
    if how not in ("drop", "clip"):
        raise ConfigError(f"{how!r} must be 'drop' or 'clip'")
    prompt = trace.prompt_tokens.astype(np.int64)
    output = trace.output_tokens.astype(np.int64)
    over = prompt + output > max_tokens
    if how == "drop":
        return keep_rows(trace, ~over, f"longer than {max_tokens:,} tokens")
    if not over.any():
        return trace
    clipped = np.where(over, np.maximum(max_tokens - output, 1), prompt)
    shortened = np.where(over, np.minimum(output, max_tokens - clipped), output)
    cut_outputs = int(np.count_nonzero(shortened < output))
    blocks = trace.blocks
    if blocks is not None:
        lengths = np.minimum(np.diff(blocks.offsets), -(-clipped // blocks.block_size))
        blocks = take_blocks(blocks, np.arange(len(trace)), lengths)
    note = (
        f"{int(np.count_nonzero(over)):,} prompts and {cut_outputs:,} outputs clipped to "
        f"{max_tokens:,} tokens together"
    )
    return dataclasses.replace(
        trace,
        prompt_tokens=clipped.astype(np.int32),
        output_tokens=shortened.astype(np.int32),
        blocks=blocks,
        source=_noted(trace.source, note),
    )


def with_arrivals(trace: Trace, arrivals: FloatColumn) -> Trace:
    """The trace with `arrivals` (seconds, one a row, non-decreasing) for its own.

    Raises:
        TraceError: the wrong number of arrivals, or a trace in closed loop, whose sessions are
            started by `with_session_starts`.
    """
    if trace.parent is not None and (trace.parent >= 0).any():
        raise TraceError(
            f"{trace.source.name} is in closed loop: give the starts of its sessions instead"
        )
    arrivals = np.asarray(arrivals, dtype=np.float64)
    if len(arrivals) != len(trace):
        raise TraceError(
            f"{len(arrivals):,} arrivals for the {len(trace):,} requests of {trace.source.name}; "
            "give one a request"
        )
    source = _replaced_times(trace, "arrival times")
    return dataclasses.replace(trace, arrival=arrivals, has_arrivals=True, source=source)


def session_count(trace: Trace) -> int:
    """The number of sessions; rows without one are not counted."""
    if trace.session is None:
        return 0
    return len(np.unique(trace.session[trace.session >= 0]))


def with_session_starts(trace: Trace, starts: FloatColumn) -> Trace:
    """Start each session at its time in `starts` (seconds, by ascending session id, any order).

    Every request keeps its recorded distance to the first of its session.

    Raises:
        TraceError: a request without a session, the wrong number of starts, a negative start.
    """
    if trace.session is None or (trace.session < 0).any():
        raise TraceError(
            f"{trace.source.name} has requests outside sessions; give arrivals, one a request"
        )
    _, first, session = np.unique(trace.session, return_index=True, return_inverse=True)
    starts = np.asarray(starts, dtype=np.float64)
    if len(starts) != len(first):
        raise TraceError(
            f"{len(starts):,} starts for the {len(first):,} sessions of {trace.source.name}; "
            "give one a session"
        )
    if not (np.isfinite(starts) & (starts >= 0)).all():
        raise TraceError("session starts must be finite and at least 0 s")
    arrival = starts[session] + (trace.arrival - trace.arrival[first][session])
    source = _replaced_times(trace, "session starts")
    return _reorder(trace, arrival, has_arrivals=True, source=source)


def _replaced_times(trace: Trace, what: str) -> TraceSource:
    verb = "replaced by" if trace.has_arrivals else "from"
    return _noted(trace.source, f"{what} {verb} an arrival process", start_ns=None)


def overlay(traces: list[Trace]) -> Trace:
    """All requests of several traces as one, each trace's time 0 at the same moment.

    Sessions, tenants and block ids stay apart, except tenants of the same name, which become one.

    Raises:
        TraceError: no trace, no arrival times, block sizes that differ, or output limits in some
            traces only.
    """
    return _combine(traces, [0.0] * len(traces), "overlay", None)


def merge(traces: list[Trace]) -> Trace:
    """As `overlay`, but on the absolute clock that the sources carry; time 0 is the earliest.

    Raises:
        TraceError: as `overlay`, or a trace without an absolute start.
    """
    begins: list[int] = []
    for trace in traces:
        if trace.source.start_ns is None:
            raise TraceError(
                f"{trace.source.name} has no absolute start to merge on; overlay the traces instead"
            )
        begins.append(trace.source.start_ns)
    first = min(begins, default=0)
    return _combine(traces, [(begin - first) / 1e9 for begin in begins], "merge", first)


def _combine(traces: list[Trace], offsets: list[float], how: str, start_ns: int | None) -> Trace:
    if not traces:
        raise TraceError(f"{how} needs at least one trace")
    for trace in traces:
        _need_arrivals(trace, f"to {how} it")
    columns, tenant_names = join_columns(traces)
    blocks = join_blocks(traces)
    sizes = [len(trace) for trace in traces]
    arrival = columns["arrival"] + np.repeat(offsets, sizes)
    order = np.argsort(arrival, kind="stable")
    columns["arrival"] = arrival
    taken, blocks = take_rows(columns, blocks, order)
    fields: dict[str, Any] = {
        "source": join_sources(traces, how, start_ns),
        "tenant_names": tenant_names,
        "blocks": blocks,
    }
    return Trace(**{**taken, **fields})
