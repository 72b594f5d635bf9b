"""`ltr`: rank by a score given at arrival, with a starvation guard (learning to rank).

Sources: Fu et al., "Efficient LLM Scheduling by Learning to Rank", NeurIPS'24, arXiv 2408.15792;
`vllm/core/scheduler.py` of hao-ai-lab/vllm-ltr at 8886f1e, which was read: the order of waiting and
running requests by (promoted, score), and the two counters of the guard. The defaults of these are
ours. Its score is a model's; here it is the predicted output, of which only the order matters
(`--predictor rank,tau=…`).
Needs to know: scores.
"""

from collections import deque
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import ClassVar, Literal

from schedsim.errors import ConfigError
from schedsim.policies.base import Policy
from schedsim.policies.preemptive import Preemptive, predicted_output
from schedsim.request import Request
from schedsim.scheduler.step import Step


@dataclass(slots=True)
class _Guard:
    """The starvation guard's count of one request, in iterations.

    It waits since `waits_since`, None while it runs; `runs` are left to it as a promoted one, whose
    end is `due` while it runs.
    """

    waits_since: int | None
    runs: int = 0
    due: int = 0


@dataclass(slots=True)
class LTR(Preemptive):
    """Ranks by score, and before all others who was promoted.

    Who has waited for `starvation` iterations in one go is promoted for the next `period`
    iterations in which it runs (`starvation` none: nobody). The rest is as published but for
    prefills, which nobody is displaced from.
    """

    name: ClassVar[str] = "ltr"

    starvation: int | None = 1000
    period: int = 100
    preemption: Literal["recompute", "swap"] = field(default="swap", kw_only=True)

    _guards: dict[int, _Guard] = field(default_factory=dict, init=False, repr=False)
    _alarms: list[tuple[int, int, Request]] = field(default_factory=list, init=False, repr=False)
    _waiting: deque[tuple[int, Request]] = field(default_factory=deque, init=False, repr=False)

    def __post_init__(self) -> None:
        for parameter in ("starvation", "period"):
            value = getattr(self, parameter)
            if value is not None and value < 1:
                raise ConfigError(f"policy {self.name!r}: {parameter}={value} is below 1")

    def accept(self, request: Request, step: Step) -> bool:
        """Everybody."""
        self._guards[request.id] = _Guard(step.iteration)
        return True

    def schedule(self, step: Step) -> None:
        """Demote and promote, then as every policy."""
        while self._alarms and self._alarms[0][0] <= step.iteration:
            due, _, request = heappop(self._alarms)
            guard = self._guards.get(request.id)
            if guard is not None and guard.due == due and guard.waits_since is None:
                guard.runs = 0
                self._ranking.put(request, self.rank(request))
        if self.starvation is not None:
            self._promote(step, step.iteration - self.starvation)
        Policy.schedule(self, step)

    def rank(self, request: Request) -> tuple[bool, float]:
        """Promoted ones first, then by score."""
        return not self._guards[request.id].runs, predicted_output(request)

    def on_arrival(self, request: Request, step: Step) -> None:
        """It begins to wait."""
        self._waiting.append((step.iteration, request))

    def on_admit(self, request: Request, step: Step) -> None:
        """If it is promoted, its runs begin to count."""
        Preemptive.on_admit(self, request, step)
        guard = self._guards[request.id]
        guard.waits_since = None
        if guard.runs:
            guard.due = step.iteration + guard.runs
            heappush(self._alarms, (guard.due, request.id, request))

    def on_preempt(self, request: Request, step: Step) -> None:
        """It begins to wait; a promoted one keeps the runs that are left."""
        Preemptive.on_preempt(self, request, step)
        guard = self._guards[request.id]
        if guard.runs:
            guard.runs = guard.due - step.iteration
        guard.waits_since = step.iteration
        self._waiting.append((step.iteration, request))

    def on_finish(self, request: Request, step: Step) -> None:
        """It is forgotten."""
        Preemptive.on_finish(self, request, step)
        del self._guards[request.id]

    def _promote(self, step: Step, latest: int) -> None:
        """Lift who has waited since `latest` or longer; its count begins anew."""
        while self._waiting and self._waiting[0][0] <= latest:
            since, request = self._waiting.popleft()
            guard = self._guards.get(request.id)
            if guard is not None and guard.waits_since == since:
                guard.runs = self.period
                guard.waits_since = step.iteration
                self._waiting.append((step.iteration, request))
                step.rekey(request)
