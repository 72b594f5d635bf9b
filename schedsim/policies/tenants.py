"""`TenantLines`: who of which tenant waits, for policies that share service among tenants."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from operator import attrgetter

from schedsim.request import Request

_by_tenant = attrgetter("tenant")


def count_tenants(requests: Iterable[Request]) -> Counter[int]:
    """How many of `requests` each tenant has."""
    return Counter(map(_by_tenant, requests))


@dataclass(slots=True)
class TenantLines:
    """Counts waiting requests by tenant; told by the hooks of a policy, each O(1).

    `last_to_leave` is the tenant whose line became empty last, None if none did yet.
    """

    waiting: Counter[int] = field(default_factory=Counter)
    last_to_leave: int | None = None
    _requeued: dict[int, None] = field(default_factory=dict)

    def arrive(self, request: Request) -> None:
        """`request` came to its tenant's line."""
        self.waiting[request.tenant] += 1

    def admit(self, request: Request) -> bool:
        """`request` left the line; True the first time, False after a preemption."""
        self._leave(request)
        is_first = request.id not in self._requeued
        if not is_first:
            del self._requeued[request.id]
        return is_first

    def preempt(self, request: Request) -> None:
        """`request` stands in line again."""
        self.waiting[request.tenant] += 1
        self._requeued[request.id] = None

    def finish(self, request: Request) -> None:
        """`request` ended, perhaps in line, with a token that was in flight."""
        if request.id in self._requeued:
            del self._requeued[request.id]
            self._leave(request)

    def check(self, waiting: Iterable[Request]) -> None:
        """Assert that the counts are those of `waiting`; O(n)."""
        counts = count_tenants(waiting)
        assert counts == +self.waiting, f"{counts} wait, counted are {self.waiting}"

    def _leave(self, request: Request) -> None:
        self.waiting[request.tenant] -= 1
        if not self.waiting[request.tenant]:
            self.last_to_leave = request.tenant
