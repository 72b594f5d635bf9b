"""What a trace looks like in numbers: rates, burstiness, lengths, shared prefixes."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from schedsim.traces.selection import roots
from schedsim.traces.trace import BoolColumn, FloatColumn, IntColumn, PromptBlocks, Trace

WINDOWS_S = (1, 10, 60)
PERCENTILES = (50, 95, 99)


@dataclass(frozen=True, slots=True)
class TokenStatistics:
    """Token counts of one column. Percentiles interpolate linearly between order statistics."""

    mean: float
    p50: float
    p95: float
    p99: float
    max: int
    total: int


@dataclass(frozen=True, slots=True)
class ArrivalStatistics:
    """Arrival times: rates in requests per second, by window width in seconds where that applies.

    `span_s` is from the first arrival to the last and `mean_rate` the rows over it. `peak_rate` is
    the highest rate in aligned windows, the cut last one included. `iat_cv` is the standard
    deviation of the inter-arrival times over their mean; `iod` the variance over the mean of the
    counts in whole windows (1 for Poisson at every width). None or absent where there are too few
    arrivals to say.
    """

    span_s: float
    mean_rate: float | None
    peak_rate: Mapping[int, float]
    iat_cv: float | None
    iod: Mapping[int, float]


@dataclass(frozen=True, slots=True)
class PrefixStatistics:
    """Shared prompt prefixes, as an infinite cache would hit them in order of arrival.

    `reused_share` is the share of distinct blocks that stand in more than one place.
    """

    block_size: int
    blocks: int
    distinct_blocks: int
    block_hit_share: float
    token_hit_share: float
    reused_share: float


@dataclass(frozen=True, slots=True)
class SessionStatistics:
    """Sessions and the closed loop: `follow_ups` wait for a parent, `think_mean_s` on average."""

    sessions: int
    follow_ups: int
    longest: int
    think_mean_s: float | None


@dataclass(frozen=True, slots=True)
class TraceStatistics:
    """Everything `describe` says about a trace; a part is None where the trace lacks the data."""

    rows_read: int
    rows: int
    dropped: Mapping[str, int]
    arrivals: ArrivalStatistics | None
    prompt: TokenStatistics
    output: TokenStatistics
    spearman: float | None
    prefix: PrefixStatistics | None
    sessions: SessionStatistics | None


def describe(trace: Trace) -> TraceStatistics:
    """Statistics of a trace; O(n log n) in its rows and blocks."""
    return TraceStatistics(
        rows_read=trace.source.rows_read,
        rows=len(trace),
        dropped=trace.source.dropped,
        arrivals=describe_arrivals(trace.arrival) if trace.has_arrivals else None,
        prompt=describe_tokens(trace.prompt_tokens),
        output=describe_tokens(trace.output_tokens),
        spearman=spearman(trace.prompt_tokens, trace.output_tokens),
        prefix=_describe_prefixes(trace),
        sessions=_describe_sessions(trace),
    )


def describe_tokens(tokens: npt.NDArray[np.integer]) -> TokenStatistics:
    """Mean, percentiles, maximum and sum of a column of token counts."""
    p50, p95, p99 = (float(value) for value in np.percentile(tokens, PERCENTILES))
    total = int(tokens.sum(dtype=np.int64))
    return TokenStatistics(total / len(tokens), p50, p95, p99, int(tokens.max()), total)


def describe_arrivals(arrival: FloatColumn) -> ArrivalStatistics:
    """Rates and burstiness of sorted arrival times, counted from the first of them."""
    since = arrival - arrival[0]
    span = float(since[-1])
    gaps = np.diff(since)
    peak: dict[int, float] = {}
    iod: dict[int, float] = {}
    for width in WINDOWS_S:
        counts = np.bincount((since // width).astype(np.int64))
        peak[width] = float(counts.max()) / width
        whole = counts[: int(span // width)]
        if len(whole) > 1 and whole.any():
            iod[width] = float(whole.var() / whole.mean())
    return ArrivalStatistics(
        span_s=span,
        mean_rate=len(arrival) / span if span > 0 else None,
        peak_rate=peak,
        iat_cv=float(gaps.std() / gaps.mean()) if span > 0 else None,
        iod=iod,
    )


def spearman(first: npt.NDArray[np.integer], second: npt.NDArray[np.integer]) -> float | None:
    """Spearman's rank correlation, ties at their mean rank; None where a column is constant."""
    ranks = [_mean_ranks(column) for column in (first, second)]
    deviations = [rank - rank.mean() for rank in ranks]
    scale = float(np.sqrt((deviations[0] ** 2).sum() * (deviations[1] ** 2).sum()))
    return float((deviations[0] * deviations[1]).sum() / scale) if scale > 0 else None


def _mean_ranks(column: npt.NDArray[np.integer]) -> FloatColumn:
    _, value, counts = np.unique(column, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return np.asarray((ends - (counts - 1) / 2)[value], dtype=np.float64)


def _describe_prefixes(trace: Trace) -> PrefixStatistics | None:
    blocks = trace.blocks
    if blocks is None or not len(blocks.ids):
        return None
    codes, distinct = _dense_ids(blocks.ids)
    hits = prefix_hits(blocks)
    tokens = np.minimum(hits * blocks.block_size, trace.prompt_tokens)
    uses = np.bincount(codes, minlength=distinct)
    return PrefixStatistics(
        block_size=blocks.block_size,
        blocks=len(blocks.ids),
        distinct_blocks=int(np.count_nonzero(uses)),
        block_hit_share=float(hits.sum() / len(blocks.ids)),
        token_hit_share=float(tokens.sum() / trace.prompt_tokens.sum(dtype=np.int64)),
        reused_share=float(np.count_nonzero(uses > 1) / np.count_nonzero(uses)),
    )


def prefix_hits(blocks: PromptBlocks) -> IntColumn:
    """For each request the number of leading blocks that an earlier request has."""
    codes, distinct = _dense_ids(blocks.ids)
    lengths = np.diff(blocks.offsets)
    request = np.repeat(np.arange(len(lengths)), lengths)
    first_request = np.full(distinct, len(lengths))
    first_request[codes[::-1]] = request[::-1]  # the last write, of the first request, stays
    misses: BoolColumn = first_request[codes] >= request
    # The first miss at or after each chain's start, bounded by the chain's end.
    places = np.append(np.flatnonzero(misses), len(codes))
    starts, ends = blocks.offsets[:-1], blocks.offsets[1:]
    first_miss = places[np.searchsorted(places, starts)]
    return np.asarray(np.minimum(first_miss, ends) - starts, dtype=np.int64)


def _dense_ids(ids: IntColumn) -> tuple[IntColumn, int]:
    """Ids as small codes and one more than the largest; sorting only ids that are not small."""
    lowest, highest = int(ids.min()), int(ids.max())
    if highest - lowest < 8 * len(ids):
        return ids - lowest, highest - lowest + 1
    distinct, codes = np.unique(ids, return_inverse=True)
    return np.asarray(codes, dtype=np.int64), len(distinct)


def _describe_sessions(trace: Trace) -> SessionStatistics | None:
    if trace.session is None and trace.parent is None:
        return None
    think_mean = None
    follow_ups = 0
    if trace.session is not None:
        groups = trace.session[trace.session >= 0]
    else:
        assert trace.parent is not None, "without sessions there are parents"
        groups = roots(trace.parent)
    if trace.parent is not None and trace.think_s is not None:
        children = trace.parent >= 0
        follow_ups = int(np.count_nonzero(children))
        think_mean = float(trace.think_s[children].mean()) if follow_ups else None
    counts = np.unique(groups, return_counts=True)[1]
    return SessionStatistics(
        sessions=len(counts),
        follow_ups=follow_ups,
        longest=int(counts.max(initial=0)),
        think_mean_s=think_mean,
    )
