"""`static`: request-level batching, as FasterTransformer serves.

Source: Yu et al., "Orca", OSDI'22, section 2, which describes it as the state before.
Needs to know: the output limit of each request.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

from schedsim.errors import ConfigError
from schedsim.policies.base import UNTIL_AN_EVENT, Policy, Release
from schedsim.policies.reserving import can_reserve, tokens_to_limit
from schedsim.request import Request
from schedsim.scheduler.step import Step


@dataclass(slots=True)
class Static(Policy):
    """A batch starts when the engine is empty and runs until its last member has finished.

    It takes `batch_size` requests (or as many as there are seats), or fewer when the first has
    waited `max_wait` seconds. Every member reserves its prompt and its whole output limit, so
    nobody is ever preempted; what does not fit waits for the next batch. Finished members keep
    seat and blocks as padding.
    """

    name: ClassVar[str] = "static"
    runs_to_the_end: ClassVar[bool] = True

    batch_size: int = 8
    max_wait: float = 0.0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"policy {self.name!r}: batch_size={self.batch_size} is below 1")
        if not 0.0 <= self.max_wait < math.inf:
            raise ConfigError(
                f"policy {self.name!r}: max_wait={self.max_wait} must be finite and not negative, "
                "or the last requests would wait for ever"
            )

    def accept(self, request: Request, step: Step) -> bool:
        """Refuse what could not reserve its limit even alone."""
        return can_reserve(request, tokens_to_limit(request), step)

    def budget(self, step: Step) -> int:
        """No bound: the batch's prompts are prefilled in one iteration."""
        return step.max_model_len * self.batch_size

    def schedule(self, step: Step) -> None:
        """Run the batch, or form the next one."""
        if step.num_running:
            step.run_decodes()
            return
        size = min(self.batch_size, step.seats)
        first = step.first_waiting
        if first is None or (step.num_waiting < size and step.now < self._deadline(first)):
            return
        while (
            len(step.admitted) < size
            and (request := step.first_waiting) is not None
            and step.admit(request, request.prompt_tokens, self.reservation(request, 0))
        ):
            pass

    def reservation(self, request: Request, tokens: int) -> int:
        """The prompt and every output token that may need a slot."""
        return tokens_to_limit(request)

    def wake_at(self, step: Step) -> float | None:
        """When the first waiting request has waited long enough."""
        first = step.first_waiting
        return None if first is None else self._deadline(first)

    def steady(self, step: Step) -> int:
        """As long as the batch runs."""
        return UNTIL_AN_EVENT

    def release(self, request: Request) -> Release:
        """With the batch."""
        return Release.BATCH_END

    def _deadline(self, request: Request) -> float:
        return request.arrival + self.max_wait
