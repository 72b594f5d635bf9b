"""`DecodeSet`: every running request that decodes one token an iteration, with lazy progress."""

from array import array
from bisect import bisect_left, insort
from operator import attrgetter

from schedsim.request import Request

_by_order = attrgetter("order")


class DecodeSet:
    """One counter for all members; a member's progress is that counter plus its own offset.

    `members` are in running order. `counter` is the number of iterations that ran the set so far
    and `ends[c]` the end of the c-th. `context` is the sum of the members' known tokens. Running
    an iteration is O(1); joining and leaving are O(log n) comparisons and one list move.
    """

    __slots__ = ("context", "counter", "ends", "members")

    def __init__(self, ends: "array[float]") -> None:
        self.members: list[Request] = []
        self.counter = 0
        self.ends = ends
        self.context = 0

    def join(self, request: Request) -> None:
        """Add a request whose known tokens are all computed but the newest."""
        self.context += request._computed + 1
        request._computed -= self.counter
        request._decode_set = self
        request._span_start = self.counter + 1
        members = self.members
        if not members or members[-1].order < request.order:
            members.append(request)
        else:
            insort(members, request, key=_by_order)

    def leave(self, request: Request) -> None:
        """Remove a member and make its progress real."""
        del self.members[bisect_left(self.members, request.order, key=_by_order)]
        request._computed += self.counter
        request._decode_set = None
        request._generated = request._computed + 1 - request.prompt_tokens
        if self.counter >= request._span_start:
            request._last_token = self.ends[self.counter]
        self.context -= request._computed + 1

    def advance(self, end: float) -> None:
        """Every member has decoded one token by `end`."""
        self.counter += 1
        self.ends.append(end)
        self.context += len(self.members)

    def check(self) -> None:
        """Assert the invariants; O(members)."""
        orders = [request.order for request in self.members]
        assert orders == sorted(set(orders)), "decode members are out of running order"
        assert all(r._decode_set is self for r in self.members), "a member points elsewhere"
        known = sum(request.num_known_tokens for request in self.members)
        assert known == self.context, f"context is {self.context}, members know {known} tokens"
        assert len(self.ends) == self.counter + 1, "a decode iteration has no end time"
