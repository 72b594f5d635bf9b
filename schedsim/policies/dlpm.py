"""`dlpm`: Deficit Longest Prefix Match, fair shares that keep what is in the prefix cache together.

Sources: Cao et al., "Locality-aware Fair Scheduling in LLM Serving", arXiv 2501.14312 (its abstract
and introduction read); the algorithm is that of an implementation after the paper as a mixin for
SGLang (Yandex's fork, `FairScheduler`, read): who is refilled, what is charged and when. The bound
of about 2(U + Q) on the gap is from memory. In SGLang longest-prefix order falls back to the order
of arrival where more than 128 wait; so does this. D²LPM, its form for several replicas, is left
out.
Needs to know: the tenant of each request, and what the prefix cache holds of it.
"""

from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from schedsim.errors import ConfigError
from schedsim.policies.base import Gate, Policy, while_nobody_joins
from schedsim.policies.tenants import TenantLines, count_tenants
from schedsim.request import Request
from schedsim.scheduler.step import Step


@dataclass(slots=True)
class DLPM(Policy):
    """Admits the longest cached prefix of those tenants that have credit left.

    A request costs its tenant `input_price` for every prompt token that was not in the cache, at
    its first admission, and `output_price` for every output token. Where no tenant in line has
    credit, `quantum` is given to all that have none until one of those in line has: a small one
    is fair, a large one keeps prefixes together. Beyond `match_limit` waiting requests they are
    taken by arrival. The first request whose known tokens have no blocks ends admission. Work that
    a preemption repeats is not charged.
    """

    name: ClassVar[str] = "dlpm"
    default_memory: ClassVar[str] = "paged,prefix_caching=true"

    quantum: int = 10_000
    input_price: int = 1
    output_price: int = 2
    match_limit: int = 128

    credits: dict[int, int] = field(default_factory=dict, init=False, repr=False)
    _line: dict[int, Request] = field(default_factory=dict, init=False, repr=False)
    _lines: TenantLines = field(default_factory=TenantLines, init=False, repr=False)

    def __post_init__(self) -> None:
        least = {"quantum": 1, "input_price": 0, "output_price": 0, "match_limit": 0}
        for parameter, bound in least.items():
            value = getattr(self, parameter)
            if value < bound:
                raise ConfigError(f"policy {self.name!r}: {parameter}={value} is below {bound}")

    def schedule(self, step: Step) -> None:
        """Run what runs, then admit by prefix or by arrival."""
        step.run_running()
        if step.preempted or step.seats <= 0 or step.tokens_left <= 0:
            return
        if step.num_waiting <= self.match_limit:
            self._admit_by_prefix(step)
        else:
            self._admit_by_arrival(step)

    def group(self, request: Request) -> Hashable:
        """The tenant."""
        return request.tenant

    def group_key(self, group: int) -> bool:
        """Tenants with credit first."""
        return self.credits[group] <= 0

    def gate(self, request: Request, tokens: int, step: Step) -> Gate:
        """Whether all known tokens have blocks."""
        need = step.blocks_to_admit(request, request.num_known_tokens)
        return Gate.ADMIT if need <= step.free_blocks else Gate.STOP

    def steady(self, step: Step) -> int:
        """While nobody can be admitted."""
        return while_nobody_joins(step)

    def on_arrival(self, request: Request, step: Step) -> None:
        """A new tenant starts without credit."""
        self.credits.setdefault(request.tenant, 0)
        self._line[request.id] = request
        self._lines.arrive(request)

    def on_admit(self, request: Request, step: Step) -> None:
        """Charge what the cache does not hold of the prompt, once."""
        del self._line[request.id]
        if self._lines.admit(request):
            extended = request.prompt_tokens - request.cached_tokens
            self.credits[request.tenant] -= self.input_price * extended

    def on_preempt(self, request: Request, step: Step) -> None:
        """It stands in line again."""
        self._line[request.id] = request
        self._lines.preempt(request)

    def on_output(self, requests: Sequence[Request], tokens: int, step: Step) -> None:
        """Charge output tokens."""
        for tenant, number in count_tenants(requests).items():
            self.credits[tenant] -= self.output_price * tokens * number

    def on_finish(self, request: Request, step: Step) -> None:
        """It may have ended in line."""
        self._line.pop(request.id, None)
        self._lines.finish(request)

    def check(self, waiting: Iterable[Request]) -> None:
        """Assert the lines of the tenants, of which `waiting` is the whole; O(n)."""
        waiting = list(waiting)
        self._lines.check(waiting)
        ids = sorted(request.id for request in waiting)
        assert ids == sorted(self._line), "the line has lost a request"
        most = max(self.credits.values(), default=0)
        assert most <= self.quantum, f"a tenant has {most} credits, more than a quantum"

    def _admit_by_prefix(self, step: Step) -> None:
        """Walk the line by cached tokens, passing over who has no credit, until nobody is left."""
        line = sorted(self._line.values(), key=lambda r: (-step.cached_tokens(r), r.arrival, r.id))
        while line:
            passed: list[Request] = []
            for request in line:
                if self.credits[request.tenant] <= 0:
                    passed.append(request)
                elif not self._admit(request, step):
                    return
            if len(passed) == len(line):
                self._refill()
            line = passed

    def _admit_by_arrival(self, step: Step) -> None:
        """The oldest request of a tenant with credit, again and again."""
        while (request := step.first_waiting) is not None:
            if self.credits[request.tenant] <= 0:
                self._refill()
            elif not self._admit(request, step):
                return

    def _admit(self, request: Request, step: Step) -> bool:
        if step.seats <= 0 or step.tokens_left <= 0:
            return False
        if self.gate(request, 0, step) is not Gate.ADMIT:
            return False
        return step.admit(request, min(request.num_tokens_left, step.tokens_left))

    def _refill(self) -> None:
        """Quanta for all who have no credit, as many as bring one of those in line above 0."""
        rounds = min(
            self._quanta_missing(tenant) for tenant, number in self._lines.waiting.items() if number
        )
        for tenant, credit in self.credits.items():
            if credit <= 0:
                quanta = min(rounds, self._quanta_missing(tenant))
                self.credits[tenant] = credit + quanta * self.quantum

    def _quanta_missing(self, tenant: int) -> int:
        """How many quanta bring a tenant without credit above 0."""
        return -self.credits[tenant] // self.quantum + 1
