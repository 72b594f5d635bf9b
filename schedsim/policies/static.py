"""`static`: request-level batching, as FasterTransformer serves.

Source: Yu et al., "Orca", OSDI'22, section 2, which describes it as the state before.
Needs to know: the output limit of each request, for `reserve` limit; predicted outputs, for
`order` predicted.
"""

import math
from dataclasses import KW_ONLY, dataclass, field
from typing import ClassVar, Literal

from schedsim.errors import ConfigError
from schedsim.policies.base import UNTIL_AN_EVENT, Policy, Release
from schedsim.policies.preemptive import predicted_output
from schedsim.policies.reserving import can_reserve, tokens_to_limit
from schedsim.request import Request
from schedsim.scheduler.step import Step


@dataclass(slots=True)
class Static(Policy):
    """A batch starts when the engine is empty and runs until its last member has finished.

    It takes `batch_size` requests (or as many as there are seats), or fewer when the first has
    waited `max_wait` seconds; `order` predicted takes those of the shortest predicted output first,
    so that a batch is of requests that are alike. With `reserve` limit every member takes room for
    its prompt and its whole output limit, so nobody is ever preempted; with prompt, for what the
    memory manager foresees: where that is too little, the last member is preempted and goes into a
    later batch. What does not fit waits for the next batch. Prompts are prefilled in one iteration,
    or in several of up to `prefill_tokens` tokens (0: no bound), whole prompts each, and nobody
    decodes before the batch is whole. Finished members keep seat and blocks as padding.
    """

    name: ClassVar[str] = "static"
    runs_to_the_end: ClassVar[bool] = True

    batch_size: int = 8
    max_wait: float = 0.0
    _: KW_ONLY
    reserve: Literal["limit", "prompt"] = "limit"
    order: Literal["arrival", "predicted"] = "arrival"
    prefill_tokens: int = 0

    _left: int = field(default=0, init=False, repr=False)  # of the batch, to be admitted

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"policy {self.name!r}: batch_size={self.batch_size} is below 1")
        if self.prefill_tokens < 0:
            raise ConfigError(
                f"policy {self.name!r}: prefill_tokens={self.prefill_tokens} is below 0"
            )
        if not 0.0 <= self.max_wait < math.inf:
            raise ConfigError(
                f"policy {self.name!r}: max_wait={self.max_wait} must be finite and not negative, "
                "or the last requests would wait for ever"
            )

    def accept(self, request: Request, step: Step) -> bool:
        """Refuse what could not reserve its limit even alone."""
        return self.reserve == "prompt" or can_reserve(request, tokens_to_limit(request), step)

    def budget(self, step: Step) -> int:
        """No bound: `prefill_tokens` is kept where the batch is filled."""
        return step.max_model_len * self.batch_size

    def schedule(self, step: Step) -> None:
        """Run the batch, or form the next one."""
        if not self._left and not step.num_running:
            self._left = self.next_batch(step)
        if self._left:
            self._fill(step)
        if not step.admitted:
            step.run_decodes()

    def next_batch(self, step: Step) -> int:
        """How many requests at the head of the line make the next batch; 0: none is due."""
        size = min(self.batch_size, step.seats)
        first = step.first_waiting
        if first is None or (step.num_waiting < size and step.now < self._deadline(first)):
            return 0
        return size

    def left_over(self, requests: int) -> None:
        """So many of the batch did not fit."""

    def key(self, request: Request) -> tuple[float, float]:
        """By predicted output where that makes the batches, then by arrival."""
        by_length = self.order == "predicted"
        return predicted_output(request) if by_length else 0.0, request.arrival

    def reservation(self, request: Request, tokens: int) -> int:
        """The prompt and every output token that may need a slot, or just the chunk."""
        return tokens_to_limit(request) if self.reserve == "limit" else tokens

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

    def _fill(self, step: Step) -> None:
        """Admit members of the batch, as many as one iteration prefills."""
        tokens = self.prefill_tokens or math.inf
        while self._left and step.seats and (request := step.first_waiting) is not None:
            prompt = request.num_known_tokens
            if step.admitted and prompt > tokens:
                return
            if not step.admit(request, prompt, self.reservation(request, prompt)):
                break
            tokens -= prompt
            self._left -= 1
        self.left_over(self._left)
        self._left = 0

    def _deadline(self, request: Request) -> float:
        return request.arrival + self.max_wait
