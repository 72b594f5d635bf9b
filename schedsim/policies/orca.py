"""`orca`: iteration-level scheduling with the longest output reserved.

Sources: Yu et al., "Orca", OSDI'22, section 4 and algorithm 1; Sarathi-Serve's reading of it
(`sarathi/core/scheduler/orca_scheduler.py` at 13f16cf), read in the source, where every request
takes the blocks of the longest context.
Needs to know: the output limit of each request, for `reserve` limit.
"""

from dataclasses import dataclass
from typing import ClassVar, Literal

from schedsim.policies.base import Policy, while_full
from schedsim.policies.reserving import can_reserve, tokens_to_limit
from schedsim.request import Request
from schedsim.scheduler.step import Step


@dataclass(slots=True)
class Orca(Policy):
    """Everyone who runs and whole prompts of whoever fits, first come first served.

    Admission takes room for the longest context (`reserve` max, as Sarathi-Serve and vLLM's paper
    have it) or for the prompt and the request's own output limit (limit, as in Orca's paper). So
    nobody is ever preempted, and the first that does not fit ends admission. Prompts are never
    cut. What bounds an iteration is the number of seats; the token budget is not used.
    """

    name: ClassVar[str] = "orca"

    reserve: Literal["max", "limit"] = "max"

    def accept(self, request: Request, step: Step) -> bool:
        """Refuse what could not reserve its room even alone."""
        return can_reserve(request, self._room(request, step), step)

    def budget(self, step: Step) -> int:
        """No bound: every seat may hold the longest prompt."""
        return step.max_model_len * (step.num_running + step.seats)

    def schedule(self, step: Step) -> None:
        """Decode everyone, then admit whole prompts."""
        step.run_decodes()
        while (
            step.seats > 0
            and (request := step.first_waiting) is not None
            and step.admit(request, request.prompt_tokens, self._room(request, step))
        ):
            pass

    def steady(self, step: Step) -> int:
        """While there is no room for anybody."""
        return while_full(step)

    def _room(self, request: Request, step: Step) -> int:
        return step.max_model_len if self.reserve == "max" else tokens_to_limit(request)
