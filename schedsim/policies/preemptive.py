"""`Preemptive`: what the policies share that run whoever ranks first and displace whoever does not.

A policy of this kind says how a request ranks; this file turns ranks into admissions, victims and
displacements. It imports no policy.
"""

from bisect import bisect_left, insort
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

from schedsim.policies.base import UNTIL_AN_EVENT, Policy, PreemptMode
from schedsim.request import Request
from schedsim.scheduler.step import Step


def predicted_output(request: Request) -> float:
    """The predicted output in tokens; of who has no prediction, its output limit."""
    prediction = request.predicted_output
    return float(request.output_limit) if prediction is None else prediction


class Ranking:
    """Running requests in order of rank, ties by id; the last one is the first to go.

    Adding and removing are O(log n) comparisons and a list move, the last one is O(1).
    """

    __slots__ = ("_entries", "_ranks", "_requests")

    def __init__(self) -> None:
        self._entries: list[tuple[Any, int]] = []
        self._ranks: dict[int, Any] = {}
        self._requests: dict[int, Request] = {}

    def __contains__(self, request: Request) -> bool:
        return request.id in self._ranks

    def put(self, request: Request, rank: Any) -> None:
        """Add a request, or give it another rank."""
        self.discard(request)
        insort(self._entries, (rank, request.id))
        self._ranks[request.id] = rank
        self._requests[request.id] = request

    def discard(self, request: Request) -> None:
        """Remove a request if it is there."""
        rank = self._ranks.pop(request.id, None)
        if rank is not None:
            del self._entries[bisect_left(self._entries, (rank, request.id))]
            del self._requests[request.id]

    def renew(self, rank: Callable[[Request], Any]) -> None:
        """Give every request the rank that it has now; O(n log n)."""
        self._ranks = {number: rank(request) for number, request in self._requests.items()}
        self._entries = sorted((rank, number) for number, rank in self._ranks.items())

    def last(self) -> Request | None:
        """Who ranks last, None if nobody runs."""
        return self._requests[self._entries[-1][1]] if self._entries else None

    def from_last(self) -> Iterator[tuple[Any, Request]]:
        """Rank and request, last one first."""
        for rank, number in reversed(self._entries):
            yield rank, self._requests[number]

    def check(self) -> None:
        """Assert the invariants; O(n log n)."""
        entries = sorted((rank, number) for number, rank in self._ranks.items())
        assert entries == self._entries, "the ranking is out of order or has lost somebody"
        assert self._requests.keys() == self._ranks.keys(), "a rank without a request"


@dataclass(slots=True)
class Preemptive(Policy):
    """Smallest rank first, waiting or running; who ranks last goes when room is missing.

    A waiting request displaces running ones that rank behind it, last one first, if what these hold
    is enough for it: nobody goes in vain (unless they share blocks, which then stay). It takes the
    blocks of all its known tokens at admission, so that only decodes can lack one. Nobody is
    displaced before it has emitted a token since its admission, so that every admission brings the
    run forward. `preemption` is recompute, or swap where the memory has a host tier.
    """

    preemption: Literal["recompute", "swap"] = field(default="recompute", kw_only=True)

    _ranking: Ranking = field(default_factory=Ranking, init=False, repr=False)
    _generated: dict[int, int] = field(default_factory=dict, init=False, repr=False)

    def rank(self, request: Request) -> Any:
        """How `request` ranks, smallest first; constant while it waits or `step.rekey` follows."""
        raise NotImplementedError

    def key(self, request: Request) -> Any:
        """Its rank."""
        return self.rank(request)

    def reservation(self, request: Request, tokens: int) -> int:
        """All known tokens."""
        return request.num_known_tokens

    def victim(self, needy: Request, step: Step) -> Request | None:
        """Who ranks last, be it `needy` itself."""
        return self._ranking.last()

    def displace(self, request: Request, step: Step) -> Request | None:
        """Who ranks last, if all behind `request` that may be displaced hold enough for it."""
        rank = self.rank(request)
        first = missing = None
        for other_rank, other in self._ranking.from_last():
            if not rank < other_rank:
                break
            if other.num_generated_tokens == self._generated[other.id]:
                continue
            if missing is None:
                first = other
                need = step.blocks_to_admit(request, request.num_known_tokens)
                missing = need - step.free_blocks
            missing -= step.blocks_held(other)
            if missing <= 0:
                return first
        return None

    def mode(self, victim: Request, step: Step) -> PreemptMode:
        """As `preemption` says."""
        return PreemptMode(self.preemption)

    def on_admit(self, request: Request, step: Step) -> None:
        """It is in the ranking now."""
        self._generated[request.id] = request.num_generated_tokens
        self._ranking.put(request, self.rank(request))

    def on_preempt(self, request: Request, step: Step) -> None:
        """It is no longer in the ranking."""
        self._ranking.discard(request)
        del self._generated[request.id]

    def on_finish(self, request: Request, step: Step) -> None:
        """It is no longer in the ranking, unless it finished with a token that was in flight."""
        self._ranking.discard(request)
        self._generated.pop(request.id, None)

    def check(self) -> None:
        """Assert the invariants; O(n log n)."""
        self._ranking.check()
        assert self._generated.keys() == self._ranking._ranks.keys(), "a request is half forgotten"


def while_ranked_last(step: Step) -> int:
    """`steady` of a `Preemptive` policy under which no rank of who runs gets worse by decoding.

    Who waits gains nothing on who runs, and what these hold grows by no more than what is free gets
    less. A prefix cache, though, may come to hold more of who waits; and who was admitted by the
    batch that is still in flight may be displaced once its first token is there.
    """
    may_gain = step.has_prefix_cache or step.decision_lag
    return 1 if may_gain and step.num_waiting else UNTIL_AN_EVENT
