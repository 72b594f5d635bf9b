"""`priority`: the most urgent first, with linear aging.

Source: the classic rule; priorities are those of the trace, smaller is more urgent, as in vLLM.
Needs to know: priorities.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from schedsim.errors import ConfigError
from schedsim.policies.preemptive import Preemptive, while_ranked_last
from schedsim.request import Request
from schedsim.scheduler.step import Step


@dataclass(slots=True)
class Priority(Preemptive):
    """Ranks by priority, which falls by `aging` a second that has passed since the arrival.

    Everybody ages at the same rate, so the order of two requests never changes: it is that of
    priority + aging · arrival. With `aging` 0 the least urgent may starve. With `displaces` a more
    urgent request takes the place of a running one, else only memory makes room, of the least
    urgent.
    """

    name: ClassVar[str] = "priority"

    aging: float = 0.0
    displaces: bool = False

    def __post_init__(self) -> None:
        if not 0.0 <= self.aging < math.inf:
            raise ConfigError(
                f"policy {self.name!r}: aging={self.aging} must be finite and not negative"
            )

    def rank(self, request: Request) -> float:
        """By aged priority; equal ones by arrival, without displacing each other."""
        return request.priority + self.aging * request.arrival

    def displace(self, request: Request, step: Step) -> Request | None:
        """Nobody, unless `displaces` says so."""
        return Preemptive.displace(self, request, step) if self.displaces else None

    def steady(self, step: Step) -> int:
        """While ranks allow nobody to make room."""
        return while_ranked_last(step)
