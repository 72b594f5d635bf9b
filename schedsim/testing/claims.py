"""What a policy may claim of itself beside the rules for all, as frozen values."""

from abc import ABC, abstractmethod
from collections import defaultdict
from dataclasses import dataclass, field
from itertools import combinations
from typing import NamedTuple

from schedsim.request import Request
from schedsim.scheduler import Batch, Scheduler


class Decision(NamedTuple):
    """One decision as a claim sees it; `tokens_left` of its budget were not used."""

    scheduler: Scheduler
    batch: Batch
    tokens_left: int
    decision_lag: int


class Claim(ABC):
    """A promise of a policy; a value, which makes a fresh `Witness` for each run."""

    @abstractmethod
    def witness(self) -> "Witness":
        """Who holds one run against the claim."""


class Witness(ABC):
    """Looks at every decision of a run, in order."""

    @abstractmethod
    def problem(self, decision: Decision) -> str:
        """How this decision breaks the claim; empty if it does not."""


@dataclass(frozen=True, slots=True)
class NonPreemptive(Claim):
    """Who was admitted runs to its end."""

    def witness(self) -> Witness:
        return _NobodyPreempted()


class _NobodyPreempted(Witness):
    def problem(self, decision: Decision) -> str:
        victims = decision.batch.preempted
        return f"request {victims[0].id} is preempted" if victims else ""


@dataclass(frozen=True, slots=True)
class WorkConserving(Claim):
    """Nobody idles who could run: budget, seats or blocks are used up.

    The head of the line is admitted while a token of the budget, a seat and blocks for all its
    known tokens beside the policy's watermark are left, except in an iteration that preempted;
    with `any_waiting` that goes for everyone in line. A running request that has a slot, or for
    which a block is free, gets a token while the budget lasts.
    """

    any_waiting: bool = False

    def witness(self) -> Witness:
        return _NobodyIdles(self.any_waiting)


@dataclass(slots=True)
class _NobodyIdles(Witness):
    any_waiting: bool

    def problem(self, decision: Decision) -> str:
        scheduler, batch = decision.scheduler, decision.batch
        if decision.tokens_left <= 0 or batch.preempted:
            return ""
        kv_cache = scheduler.kv_cache
        left = f"{decision.tokens_left} tokens of the budget and {kv_cache.free_blocks} blocks"
        spare = kv_cache.free_blocks - scheduler.policy.watermark_blocks(kv_cache.total_blocks)
        if scheduler.num_running < scheduler.max_seqs:
            for request in scheduler.waiting[: None if self.any_waiting else 1]:
                if kv_cache.blocks_to_admit(request, request.num_known_tokens) <= spare:
                    return f"request {request.id} waits though a seat, {left} are left"
        for request in _idle(scheduler, batch):
            slots = len(kv_cache.block_table(request)) * kv_cache.block_size
            if slots > request.num_computed_tokens or kv_cache.free_blocks:
                return f"request {request.id} runs but gets no token though {left} are left"
        return ""


def _idle(scheduler: Scheduler, batch: Batch) -> list[Request]:
    """Who runs but gets no token, though its last one is not in flight."""
    passed = {entry.request.id for entry in batch.expand()}
    passed.update(request.id for request in scheduler.ending)
    return [request for request in scheduler.running if request.id not in passed]


@dataclass(frozen=True, slots=True)
class StarvationFree(Claim):
    """Nobody is overtaken more than `bound` times in a row.

    While a request waits or is held, at most `bound` requests that came after it are admitted
    before it gets a token. First come, first served is 0 of these.
    """

    bound: int

    def witness(self) -> Witness:
        return _Overtaken(self.bound)


@dataclass(slots=True)
class _Overtaken(Witness):
    bound: int
    by: "defaultdict[int, int]" = field(default_factory=lambda: defaultdict(int))

    def problem(self, decision: Decision) -> str:
        scheduler, batch = decision.scheduler, decision.batch
        idle = [*scheduler.waiting, *_idle(scheduler, batch)]
        for entry in batch.expand():
            self.by[entry.request.id] = 0
        for request in idle:
            later = [r for r in batch.admitted if (r.arrival, r.id) > (request.arrival, request.id)]
            self.by[request.id] += len(later)
            if self.by[request.id] > self.bound:
                return (
                    f"request {request.id} got no token while {self.by[request.id]} requests that "
                    f"came after it were admitted, claimed are {self.bound} at most"
                )
        return ""


@dataclass(frozen=True, slots=True)
class Fair(Claim):
    """Tenants that wait get the same service, give or take `bound`.

    Over any stretch in which two tenants both have requests waiting all the time, the services
    they get differ by at most `bound`. A prefill token is a service of `prefill_weight`, a decode
    of `decode_weight` (1 and 2 in Sheng et al., OSDI'24, whose bound is 2·max(1·longest prompt,
    2·tokens in memory)).
    """

    bound: int
    prefill_weight: int = 1
    decode_weight: int = 2

    def witness(self) -> Witness:
        return _EqualService(self)


@dataclass(slots=True)
class _EqualService(Witness):
    claim: Fair
    service: "defaultdict[int, int]" = field(default_factory=lambda: defaultdict(int))
    spread: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)

    def problem(self, decision: Decision) -> str:
        waiting = sorted({request.tenant for request in decision.scheduler.waiting})
        for chunk in decision.batch.prefills:
            self.service[chunk.request.tenant] += chunk.tokens * self.claim.prefill_weight
        if decision.batch.runs_decodes:
            for request in decision.batch.decodes:
                self.service[request.tenant] += self.claim.decode_weight
        before, self.spread = self.spread, {}
        for pair in combinations(waiting, 2):
            ahead = self.service[pair[0]] - self.service[pair[1]]
            least, most = before.get(pair, (ahead, ahead))
            self.spread[pair] = least, most = min(least, ahead), max(most, ahead)
            if most - least > self.claim.bound:
                return (
                    f"tenants {pair[0]} and {pair[1]} both wait, and their services drift apart "
                    f"by {most - least}, claimed are {self.claim.bound} at most"
                )
        return ""


WORK_CONSERVING = WorkConserving()
NON_PREEMPTIVE = NonPreemptive()
