"""`TokenTimes`: when every output token came, rebuilt from the token log without a list of them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from schedsim.results.columns import Mask
from schedsim.results.quantiles import Floats, Ints
from schedsim.scheduler.token_log import TokenLog

_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class _SortedLog:
    """The token log as arrays, its gaps and its spans sorted by request, then as they came."""

    decode_ends: Floats
    gap_request: Ints
    gap_s: Floats
    span_request: Ints
    span_first: Ints
    span_last: Ints

    @classmethod
    def of(cls, log: TokenLog) -> "_SortedLog":
        gap_request, span_request = np.array(log.gap_request), np.array(log.span_request)
        by_gap = np.argsort(gap_request, kind="stable")
        by_span = np.argsort(span_request, kind="stable")
        return cls(
            decode_ends=np.array(log.decode_ends),
            gap_request=gap_request[by_gap],
            gap_s=np.array(log.gap_s)[by_gap],
            span_request=span_request[by_span],
            span_first=np.array(log.span_first)[by_span],
            span_last=np.array(log.span_last)[by_span],
        )


@dataclass(frozen=True, slots=True)
class TokenTimes:
    """The gaps of a run with their places in time; a request's token 0 is its first token.

    Gap i (`gap_*`): token `gap_index[i]` of request `gap_request[i]` came at `gap_end[i]`,
    `gap_s[i]` after the one before. Span j (`span_*`): the tokens `span_index[j]` and on of request
    `span_request[j]` came at `decode_ends[c]` for c in `span_first[j] .. span_last[j]`.
    """

    decode_ends: Floats
    gap_request: Ints
    gap_s: Floats
    gap_end: Floats
    gap_index: Ints
    span_request: Ints
    span_first: Ints
    span_last: Ints
    span_index: Ints

    @classmethod
    def from_log(cls, log: TokenLog, first_token: Floats, step_ends: Floats) -> "TokenTimes":
        """Put the log's gaps and spans of each request in order.

        `first_token` is by request id; `step_ends` are the ends of all iterations, ascending. The
        log keeps durations of single gaps only, so each is laid behind the token before it and set
        to the end of the iteration that this meets: exact to the bit.
        """
        in_order = _SortedLog.of(log)
        last = in_order.decode_ends[-1]
        if not len(step_ends) or last > step_ends[-1]:  # a hook raised after the tokens were booked
            step_ends = np.append(step_ends, last)
        layout = _Layout(in_order, first_token, step_ends)
        layout.run()
        return cls(
            decode_ends=in_order.decode_ends,
            gap_request=in_order.gap_request,
            gap_s=in_order.gap_s,
            gap_end=layout.gap_end,
            gap_index=layout.gap_index,
            span_request=in_order.span_request,
            span_first=in_order.span_first,
            span_last=in_order.span_last,
            span_index=layout.span_index,
        )

    def decode_gaps(self) -> Floats:
        """`decode_ends[c] - decode_ends[c - 1]` at place c; 0 at the filler."""
        return np.diff(self.decode_ends, prepend=self.decode_ends[:1])

    def decode_weights(self) -> Ints:
        """How many spans cover decode iteration c, by a difference array."""
        size = len(self.decode_ends) + 1
        begins = np.bincount(self.span_first, minlength=size)
        ends = np.bincount(self.span_last + 1, minlength=size)
        return np.cumsum(begins - ends)[:-1]

    def itl_samples(self, after: float = -np.inf, until: float = np.inf) -> tuple[Floats, Ints]:
        """Every gap that ends in `(after, until]`, as values and weights."""
        gap_in = (self.gap_end > after) & (self.gap_end <= until)
        decode_in = (self.decode_ends > after) & (self.decode_ends <= until)
        values = np.concatenate([self.decode_gaps(), self.gap_s])
        weights = np.concatenate([self.decode_weights() * decode_in, gap_in.astype(np.int64)])
        return values, weights

    def longest_gap(self, num_requests: int) -> Floats:
        """The longest gap of each request; NaN where it has fewer than two tokens."""
        longest = np.full(num_requests, -np.inf)
        np.maximum.at(longest, self.gap_request, self.gap_s)
        span_longest = range_maximum(self.decode_gaps(), self.span_first, self.span_last)
        np.maximum.at(longest, self.span_request, span_longest)
        longest[np.isneginf(longest)] = np.nan
        return longest

    def tokens_on_time(self, first_token: Floats, deadline: Floats, per_token: Floats) -> Ints:
        """How many tokens of each request came by `deadline + index · per_token`; all by id, s."""
        on_time = (first_token <= deadline).astype(np.int64)
        due = deadline[self.gap_request] + self.gap_index * per_token[self.gap_request]
        on_time += np.bincount(self.gap_request[self.gap_end <= due], minlength=len(on_time))
        for request, index, end in self._span_tokens():
            due = deadline[request] + index * per_token[request]
            on_time += np.bincount(request[end <= due], minlength=len(on_time))
        return on_time

    def _span_tokens(self) -> Iterator[tuple[Ints, Ints, Floats]]:
        """Request, index and time of each token in a span, about a million at a time."""
        lengths = self.span_last - self.span_first + 1
        total = np.cumsum(lengths)
        begin = 0
        while begin < len(lengths):
            done = total[begin - 1] if begin else 0
            stop = max(begin + 1, int(np.searchsorted(total, done + _CHUNK, side="right")))
            repeat = lengths[begin:stop]
            starts = np.cumsum(repeat) - repeat
            place = np.arange(int(repeat.sum())) - np.repeat(starts, repeat)
            index = place + np.repeat(self.span_index[begin:stop], repeat)
            place += np.repeat(self.span_first[begin:stop], repeat)
            request = np.repeat(self.span_request[begin:stop], repeat)
            yield request, index, self.decode_ends[place]
            begin = stop


class _Layout:
    """Puts gaps and spans, both sorted by request and then in order, behind each other.

    All requests advance together by one entry a round, so the work is O(entries) and there are as
    many rounds as the busiest request has entries. A span is next when it starts at the request's
    latest token; a gap of no length goes before it.
    """

    def __init__(
        self,
        log: _SortedLog,
        first_token: Floats,
        step_ends: Floats,
    ) -> None:
        self._log = log
        self._step_ends = step_ends
        ids = np.arange(len(first_token) + 1)
        gap_bounds = np.searchsorted(log.gap_request, ids)
        span_bounds = np.searchsorted(log.span_request, ids)
        self._next_gap, self._gap_stop = gap_bounds[:-1].copy(), gap_bounds[1:]
        self._next_span, self._span_stop = span_bounds[:-1].copy(), span_bounds[1:]
        self._latest = first_token.copy()
        self._index = np.ones(len(first_token), dtype=np.int64)
        self.gap_end = np.empty(len(log.gap_request))
        self.gap_index = np.empty(len(log.gap_request), dtype=np.int64)
        self.span_index = np.empty(len(log.span_request), dtype=np.int64)

    def run(self) -> None:
        """Fill `gap_end`, `gap_index` and `span_index`."""
        active = np.arange(len(self._index))
        while True:
            has_gap = self._next_gap[active] < self._gap_stop[active]
            has_span = self._next_span[active] < self._span_stop[active]
            left = has_gap | has_span
            active, has_gap, has_span = active[left], has_gap[left], has_span[left]
            if not len(active):
                return
            takes_span = self._span_is_next(active, has_gap, has_span)
            assert (takes_span | has_gap).all(), "a span does not follow on the tokens before it"
            self._take_spans(active[takes_span])
            self._take_gaps(active[~takes_span])

    def _span_is_next(self, active: Ints, has_gap: Mask, has_span: Mask) -> Mask:
        log = self._log
        is_next = has_span.copy()
        rows = active[has_span]
        before = log.decode_ends[log.span_first[self._next_span[rows]] - 1]
        is_next[has_span] = before == self._latest[rows]
        has_both = np.flatnonzero(is_next & has_gap)
        is_next[has_both] = log.gap_s[self._next_gap[active[has_both]]] > 0
        return is_next

    def _take_spans(self, rows: Ints) -> None:
        log, entry = self._log, self._next_span[rows]
        self.span_index[entry] = self._index[rows]
        self._index[rows] += log.span_last[entry] - log.span_first[entry] + 1
        self._latest[rows] = log.decode_ends[log.span_last[entry]]
        self._next_span[rows] += 1

    def _take_gaps(self, rows: Ints) -> None:
        entry = self._next_gap[rows]
        ends = _nearest(self._step_ends, self._latest[rows] + self._log.gap_s[entry])
        self.gap_end[entry] = self._latest[rows] = ends
        self.gap_index[entry] = self._index[rows]
        self._index[rows] += 1
        self._next_gap[rows] += 1


def _nearest(ascending: Floats, wanted: Floats) -> Floats:
    above = np.searchsorted(ascending, wanted).clip(1, len(ascending) - 1)
    low, high = ascending[above - 1], ascending[above]
    nearest: Floats = np.where(wanted - low < high - wanted, low, high)
    return nearest


def range_maximum(values: Floats, first: Ints, last: Ints) -> Floats:
    """The maximum of `values[first[i] : last[i] + 1]` for each i, by a sparse table.

    Only one level of the table is held at a time: O((values + ranges) · log longest) time and
    O(values + ranges) memory.
    """
    lengths = last - first + 1
    level_of = np.frexp(lengths.astype(np.float64))[1] - 1  # floor(log2(length)), exact
    result = np.empty(len(first))
    table = values
    for level in range(int(level_of.max(initial=0)) + 1):
        if level:
            half = 1 << (level - 1)
            table = np.maximum(table[:-half], table[half:])
        chosen = np.flatnonzero(level_of == level)
        left, right = first[chosen], last[chosen] + 1 - (1 << level)
        result[chosen] = np.maximum(table[left], table[right])
    return result
