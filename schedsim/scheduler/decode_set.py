"""`DecodeSet`: every running request that decodes one token an iteration, with lazy progress."""

from array import array
from bisect import bisect_left, insort
from heapq import heapify, heappop, heappush
from operator import attrgetter

import numpy as np
import numpy.typing as npt

from schedsim.request import Request

_by_order = attrgetter("order")

FORMER_MEMBERS = 64
"""Entries of requests that left, beside one for each member, from which on they are cleared."""


class DecodeSet:
    """One counter for all members; a member's progress is that counter plus its own offset.

    `members` are in running order. `counter` is the number of planned iterations that run the set,
    `num_ended` how many of them ended, `ends[c]` the end of the c-th. A member has computed a token
    in each that was planned since it joined, and emitted one in each that ended. `context` is the
    sum over the members of their tokens in the cache and the next one, `longest_context` the most
    that one has. Running an iteration is O(1); joining and leaving are O(log n) comparisons and one
    list move.
    """

    __slots__ = ("_by_length", "context", "counter", "ends", "members", "num_ended")

    def __init__(self, ends: "array[float]") -> None:
        self.members: list[Request] = []
        self.counter = 0
        self.num_ended = 0
        self.ends = ends
        self.context = 0
        # (minus the offset, id, request), longest first, with those of requests that left.
        self._by_length: list[tuple[int, int, Request]] = []

    @property
    def longest_context(self) -> int:
        """The most tokens of a member, the next one included; 0 without members. Amortised O(1)."""
        by_length = self._by_length
        while by_length:
            offset, _, request = by_length[0]
            if request._decode_set is self and request._computed == -offset:
                return self.counter - offset + 1
            heappop(by_length)
        return 0

    def join(self, request: Request) -> None:
        """Add a request whose known tokens are all computed but the newest.

        That one may still be in flight.
        """
        self.context += request._computed + 1
        request._computed -= self.counter
        request._decode_set = self
        request._span_start = self.counter + 1
        members = self.members
        heappush(self._by_length, (-request._computed, request.id, request))
        if len(self._by_length) > 2 * len(members) + FORMER_MEMBERS:
            self._by_length = [(-r._computed, r.id, r) for r in (*members, request)]
            heapify(self._by_length)
        if not members or members[-1].order < request.order:
            members.append(request)
        else:
            insort(members, request, key=_by_order)

    def leave(self, request: Request) -> bool:
        """Remove a member and make its progress real; True if a token of it is in flight."""
        del self.members[bisect_left(self.members, request.order, key=_by_order)]
        first, last = request._span_start, self.num_ended
        request._decode_set = None
        request._computed += self.counter
        if last >= first:
            request._generated += last - first + 1
            request._last_token = self.ends[last]
        self.context -= request._computed + 1
        return self.counter >= first and self.counter > last

    def advance(self) -> None:
        """An iteration that runs the set is planned: every member computes one token."""
        self.counter += 1
        self.context += len(self.members)

    def end(self, end: float) -> None:
        """The oldest iteration in flight that runs the set ended: its members emitted a token."""
        self.num_ended += 1
        self.ends.append(end)

    def skip(self, iterations: int) -> None:
        """`advance` so many times."""
        self.counter += iterations
        self.context += iterations * len(self.members)

    def end_all(self, ends: npt.NDArray[np.float64]) -> None:
        """`end` at each of these times."""
        self.num_ended += len(ends)
        self.ends.frombytes(ends.tobytes())

    def check(self) -> None:
        """Assert the invariants; O(members)."""
        orders = [request.order for request in self.members]
        assert orders == sorted(set(orders)), "decode members are out of running order"
        assert all(r._decode_set is self for r in self.members), "a member points elsewhere"
        context = sum(request.num_computed_tokens + 1 for request in self.members)
        assert context == self.context, f"context is {self.context}, members have {context} tokens"
        longest = max((request.num_computed_tokens + 1 for request in self.members), default=0)
        assert longest == self.longest_context, f"the longest member has {longest} tokens"
        assert len(self.ends) == self.num_ended + 1, "a decode iteration has no end time"
        assert self.num_ended <= self.counter, "an iteration ended that was never planned"
