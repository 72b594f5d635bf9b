"""`past-future`: admission by the peak of memory that is to come, as in LightLLM.

Sources: Gong et al., "Past-Future Scheduler for LLM Serving under SLA Guarantees", ASPLOS'25;
LightLLM, `lightllm/server/router/req_queue/continues_batch/impl.py` at 051a2bc and
`PastFutureQueue` (window, conditional and fresh samples, several lists), read in the source.
Needs to know: the output limit of each request, and the lengths of those that finished (`lengths`
sampled) or a prediction (predicted).
"""

import random
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from schedsim.errors import ConfigError
from schedsim.policies.base import Policy
from schedsim.policies.peak import Growth, expected_output, growth, peak_tokens
from schedsim.policies.reserving import fits_budget
from schedsim.request import Request
from schedsim.scheduler.step import Step

FIRST_GUESS = 1024
"""An output length that fills half the window before anything has finished, as in LightLLM."""

MOST_LISTS = 5
ENOUGH_SAMPLES = 200
"""Each request is sampled so often that there are as many samples, but at most `MOST_LISTS`."""


@dataclass(slots=True)
class PastFuture(Policy):
    """The head of the line is admitted if the peak of all who run, and it, fits into memory.

    What a request will emit is its limit (`lengths` conservative), its prediction (predicted), or
    drawn from the last `window` requests that finished (sampled): of who runs from those of them
    that were longer than it is, and its limit; the largest peak of several draws counts. Who runs
    is expected to stay `margin` iterations longer than that. `reserved` is the share of memory that
    the peak leaves free; by default 0.05 if lengths are sampled. A head that did not fit is looked
    at again when somebody has left: while all decode, the peak stays what it is.

    New prompts are computed whole, alone in their iteration, and the decodes pause. Where memory is
    short after all, the latest admitted is paused and computed again.
    """

    name: ClassVar[str] = "past-future"

    lengths: Literal["conservative", "sampled", "predicted"] = "sampled"
    window: int = 1000
    margin: int = 6
    reserved: float | None = None
    seed: int = 0

    _history: deque[int] = field(default_factory=deque, init=False, repr=False)
    _random: random.Random = field(default_factory=random.Random, init=False, repr=False)
    _is_blocked: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        for parameter, least in (("window", 2), ("margin", 0), ("seed", 0)):
            value = getattr(self, parameter)
            if value < least:
                raise ConfigError(f"policy {self.name!r}: {parameter}={value} is below {least}")
        if self.reserved is None:
            self.reserved = 0.05 if self.lengths == "sampled" else 0.0
        if not 0.0 <= self.reserved < 1.0:
            raise ConfigError(f"policy {self.name!r}: reserved={self.reserved} is not in [0, 1)")
        self._history = deque([FIRST_GUESS] * (self.window // 2), maxlen=self.window)
        self._random = random.Random(self.seed)

    def default_token_budget(self, max_model_len: int) -> int:
        """Every prompt fits."""
        return max(max_model_len, 2048)

    def accept(self, request: Request, step: Step) -> bool:
        """Refuse a prompt that no iteration can take."""
        return fits_budget(request, request.prompt_tokens, step)

    def schedule(self, step: Step) -> None:
        """Prefill whoever fits, else decode."""
        if step.seats > 0 and step.num_waiting and not self._is_blocked:
            self._admit(step)
        if not step.admitted:
            step.run_decodes()

    def on_preempt(self, request: Request, step: Step) -> None:
        """Memory came free."""
        self._is_blocked = False

    def on_finish(self, request: Request, step: Step) -> None:
        """Memory came free, and there is one more length to draw from."""
        self._is_blocked = False
        self._history.append(request.num_generated_tokens)

    def _admit(self, step: Step) -> None:
        assert self.reserved is not None, "it has a default"
        room = int(step.total_blocks * step.block_size * (1.0 - self.reserved))
        running = step.running
        history = sorted(self._history)
        draws = self._num_draws(len(running))
        futures = [
            [self._future(r, r.num_computed_tokens, history, step) for r in running]
            for _ in range(draws)
        ]
        while step.seats > 0 and (request := step.first_waiting) is not None:
            known = request.num_known_tokens
            left = known - step.cached_tokens(request)
            if step.admitted and left > step.tokens_left:
                break
            for growths in futures:
                growths.append(self._future(request, known, history, step))
            # Alone it runs in any case: it was accepted because it fits.
            fits = not step.num_running or max(map(peak_tokens, futures)) <= room
            if not fits or not step.admit(request, left):
                self._is_blocked = True
                break

    def _num_draws(self, running: int) -> int:
        if self.lengths != "sampled":
            return 1
        return min(MOST_LISTS, ENOUGH_SAMPLES // max(running, 1) + 1)

    def _future(self, request: Request, held: int, history: list[int], step: Step) -> Growth:
        output = request.output_limit
        if self.lengths == "predicted":
            output = expected_output(request)
        elif self.lengths == "sampled":
            output = min(self._draw(request, history), output)
        return growth(request, held, output, step.block_size, self.margin)

    def _draw(self, request: Request, history: list[int]) -> int:
        """A length: of one that finished, longer than `request` is already if it has begun."""
        generated = request.num_generated_tokens
        if not generated:
            return history[self._random.randrange(len(history))]
        longer = bisect_right(history, generated)
        # Between its length and its limit, every longer one is as likely; linear in between.
        place = self._random.random() * (len(history) - longer + 1)
        index = longer + int(place)
        low = generated if index == longer else history[index - 1]
        high = request.output_limit if index == len(history) else history[index]
        return round(low + (high - low) * (place - int(place)))
