"""`mlfq`: FastServe's skip-join multi-level feedback queue, with swap.

Sources: Wu et al., "Fast Distributed Inference Serving for Large Language Models" (FastServe),
arXiv 2305.05920; its published scheduler, `fastserve/scheduler.py` at 6da4b75, which was read: base
quantum 10 ms, factor 2, promotion after 3 s, looked for at every 1000th iteration, whoever has run
returns to the front of its queue.
Needs to know: prompt lengths, the time of a prefill alone (the run's estimator), the clock.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import ClassVar, Literal

from schedsim.errors import ConfigError
from schedsim.policies.base import Policy
from schedsim.policies.preemptive import Preemptive
from schedsim.request import Request
from schedsim.scheduler.batch import BatchShape
from schedsim.scheduler.step import Step


@dataclass(slots=True)
class _Place:
    """Where a request stands; times in nanoseconds.

    `used` of its level's quantum before the present admission, which came at `since`; `due` is when
    the quantum ends, None while it waits. `is_first`: it goes before those who have not run.
    """

    level: int
    waits_since: int
    used: int = 0
    since: int = 0
    due: int | None = None
    is_first: bool = False


@dataclass(slots=True)
class MLFQ(Preemptive):
    """Ranks by queue: queue i has a quantum of `quantum_ms` · 2^i, and the first ones go first.

    A request joins the first queue whose quantum its prefill alone does not exceed. Once it was
    served for longer than the quantum of its queue it falls to the next one, with nothing used;
    only running counts. At every `period`-th iteration who has waited for `starvation` seconds in
    one go rises to queue 0 (none: never). Inside a queue who has run or was lifted goes first, then
    it is by arrival.

    As published, but: running requests are chunked like `vllm`'s, and none is displaced during its
    prefill; a request that is displaced is swapped out at once, where FastServe keeps it on the
    device until room is short and copies ahead of need; admission does not wait for host blocks.
    """

    name: ClassVar[str] = "mlfq"

    quantum_ms: float = 10.0
    starvation: float | None = 3.0
    period: int = 1000
    preemption: Literal["recompute", "swap"] = field(default="swap", kw_only=True)

    _places: dict[int, _Place] = field(default_factory=dict, init=False, repr=False)
    _alarms: list[tuple[int, int, Request]] = field(default_factory=list, init=False, repr=False)
    _waiting: deque[tuple[int, Request]] = field(default_factory=deque, init=False, repr=False)
    _next_look: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 1e-3 <= self.quantum_ms < math.inf:
            raise ConfigError(
                f"policy {self.name!r}: quantum_ms={self.quantum_ms} must be finite and at "
                "least 0.001"
            )
        if self.starvation is not None and not 0.0 < self.starvation < math.inf:
            raise ConfigError(
                f"policy {self.name!r}: starvation={self.starvation} must be finite and above 0, "
                "or none"
            )
        if self.period < 1:
            raise ConfigError(f"policy {self.name!r}: period={self.period} is below 1")

    def accept(self, request: Request, step: Step) -> bool:
        """Everybody; the queue that it joins follows from the time of its prefill."""
        alone = BatchShape(sampled=1)
        alone.add_chunk(request.prompt_tokens)
        seconds = step.estimate(alone)
        level = 0
        while self._quantum(level) < _nanoseconds(seconds):
            level += 1
        self._places[request.id] = _Place(level, _nanoseconds(step.now))
        return True

    def schedule(self, step: Step) -> None:
        """Demote and promote, then as every policy."""
        now = _nanoseconds(step.now)
        while self._alarms and self._alarms[0][0] < now:
            due, _, request = heappop(self._alarms)
            place = self._places.get(request.id)
            if place is not None and place.due == due:
                place.level += 1
                place.used = 0
                self._start(request, place, now)
        if self.starvation is not None and step.iteration >= self._next_look:
            self._next_look = step.iteration + self.period
            self._promote(step, now - _nanoseconds(self.starvation))
        Policy.schedule(self, step)

    def rank(self, request: Request) -> tuple[int, bool]:
        """By queue; who has run before who has not."""
        place = self._places[request.id]
        return place.level, not (place.is_first or request.admitted is not None)

    def on_arrival(self, request: Request, step: Step) -> None:
        """It begins to wait."""
        self._waiting.append((self._places[request.id].waits_since, request))

    def on_admit(self, request: Request, step: Step) -> None:
        """Its quantum goes on."""
        Preemptive.on_admit(self, request, step)
        self._start(request, self._places[request.id], _nanoseconds(step.now))

    def on_preempt(self, request: Request, step: Step) -> None:
        """Its quantum stands still, and it begins to wait."""
        Preemptive.on_preempt(self, request, step)
        place, now = self._places[request.id], _nanoseconds(step.now)
        place.used += now - place.since
        place.due = None
        place.waits_since = now
        self._waiting.append((now, request))

    def on_finish(self, request: Request, step: Step) -> None:
        """It is forgotten."""
        Preemptive.on_finish(self, request, step)
        del self._places[request.id]

    def _quantum(self, level: int) -> int:
        return round(self.quantum_ms * 1e6) << level

    def _start(self, request: Request, place: _Place, now: int) -> None:
        """Rank a running request, whose quantum or the rest of it begins."""
        place.since = now
        place.due = now + max(self._quantum(place.level) - place.used, 0)
        heappush(self._alarms, (place.due, request.id, request))
        self._ranking.put(request, self.rank(request))

    def _promote(self, step: Step, latest: int) -> None:
        """Lift who has waited since `latest` or longer."""
        while self._waiting and self._waiting[0][0] <= latest:
            since, request = self._waiting.popleft()
            place = self._places.get(request.id)
            if place is not None and place.due is None and place.waits_since == since:
                place.level = place.used = 0
                place.is_first = True
                step.rekey(request)


def _nanoseconds(seconds: float) -> int:
    return round(seconds * 1e9)
