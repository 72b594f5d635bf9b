"""`TokenLog`: the times between tokens of a whole run, without a list per token.

Output tokens come in two ways. A request in the decode set gets one at the end of every iteration
that runs the set: these ends are numbered and kept once for all requests. A request that stays in
the set gives a *span* of that numbering. Every other gap (prefill to first decode, across a hold
or a preemption) is written down one by one.
"""

from array import array


class TokenLog:
    """Spans and single gaps between consecutive output tokens of the same request, in seconds.

    `decode_ends[c]` is the end of the c-th iteration that ran the decode set (index 0 is a filler).
    Span i says: request `span_request[i]` has the gaps `decode_ends[c] - decode_ends[c - 1]` for
    every c in `span_first[i] .. span_last[i]`, both included. Single gap i says: request
    `gap_request[i]` waited `gap_s[i]` between two tokens. A request with n output tokens has n - 1
    gaps in all.
    """

    __slots__ = (
        "decode_ends",
        "gap_request",
        "gap_s",
        "span_first",
        "span_last",
        "span_request",
    )

    def __init__(self) -> None:
        self.decode_ends = array("d", [0.0])
        self.gap_request = array("q")
        self.gap_s = array("d")
        self.span_request = array("q")
        self.span_first = array("q")
        self.span_last = array("q")

    def add_gap(self, request_id: int, seconds: float) -> None:
        """Write down one gap."""
        self.gap_request.append(request_id)
        self.gap_s.append(seconds)

    def add_span(self, request_id: int, first: int, last: int) -> None:
        """Write down the gaps that end at the decode iterations `first..last`."""
        self.span_request.append(request_id)
        self.span_first.append(first)
        self.span_last.append(last)
