"""`las`: least attained service first, in quanta of output tokens.

Source: the classic rule (foreground-background), the best without any knowledge of lengths where
their hazard rate falls; with a quantum, so that equals do not take turns at every token.
Needs to know: what was emitted.
"""

from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import ClassVar

from schedsim.errors import ConfigError
from schedsim.policies.base import Policy
from schedsim.policies.preemptive import Preemptive, while_ranked_last
from schedsim.request import Request
from schedsim.scheduler.step import Step


@dataclass(slots=True)
class LAS(Preemptive):
    """Ranks by the number of whole quanta of `quantum` output tokens that a request has emitted.

    Inside a quantum it is by arrival, and equals do not displace each other: who has begun a
    quantum ends it unless somebody with less waits.
    """

    name: ClassVar[str] = "las"

    quantum: int = 64

    # When a running request may end its quantum: iteration, request id, order of this admission.
    _alarms: list[tuple[int, int, int, Request]] = field(
        default_factory=list, init=False, repr=False
    )

    def __post_init__(self) -> None:
        if self.quantum < 1:
            raise ConfigError(f"policy {self.name!r}: quantum={self.quantum} is below 1")

    def rank(self, request: Request) -> int:
        """Quanta attained."""
        return request.num_generated_tokens // self.quantum

    def schedule(self, step: Step) -> None:
        """Rank anew who has ended a quantum, then as every policy."""
        alarms = self._alarms
        while alarms and alarms[0][0] <= step.iteration:
            _, _, order, request = heappop(alarms)
            if request in self._ranking and request.order == order:
                self._ranking.put(request, self.rank(request))
                self._watch(request, step)
        Policy.schedule(self, step)

    def steady(self, step: Step) -> int:
        """Until somebody ends a quantum, if that may make room for who waits."""
        steady = while_ranked_last(step)
        if step.num_waiting and self._alarms:
            steady = min(steady, max(self._alarms[0][0] - step.iteration + 1, 1))
        return steady

    def on_admit(self, request: Request, step: Step) -> None:
        """It begins or goes on with a quantum."""
        Preemptive.on_admit(self, request, step)
        self._watch(request, step)

    def _watch(self, request: Request, step: Step) -> None:
        """Look again when it ends its quantum at the earliest, with a token in every iteration."""
        left = self.quantum - request.num_generated_tokens % self.quantum
        heappush(self._alarms, (step.iteration + left, request.id, request.order, request))
