"""`past-future`: admission by the peak of memory that is to come, as in LightLLM.

Sources: Gong et al., "Past-Future Scheduler for LLM Serving under SLA Guarantees", ASPLOS'25;
LightLLM, `lightllm/server/router/req_queue/continues_batch/impl.py` at 051a2bc and
`PastFutureQueue` (window, conditional and fresh samples, several lists), read in the source.
Needs to know: the output limit of each request, and the lengths of those that finished (`lengths`
sampled) or a prediction (predicted).
"""

from collections import deque
from dataclasses import dataclass, field
from itertools import chain
from operator import attrgetter
from typing import ClassVar, Literal

import numpy as np

from schedsim.errors import ConfigError
from schedsim.policies.base import UNTIL_AN_EVENT, Policy, while_nobody_joins
from schedsim.policies.peak import Growth, Ints, expected_output, growth
from schedsim.policies.reserving import fits_budget
from schedsim.request import Request
from schedsim.scheduler.step import Step

FIRST_GUESS = 1024
"""An output length that fills half the window before anything has finished, as in LightLLM."""

MOST_FUTURES = 5
ENOUGH_SAMPLES = 200
"""Each request is sampled so often that there are as many samples, but at most `MOST_FUTURES`."""

_output_limit = attrgetter("output_limit")


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
    short after all, the latest admitted is paused and computed again; what that made longer than
    the token budget runs alone.
    """

    name: ClassVar[str] = "past-future"

    lengths: Literal["conservative", "sampled", "predicted"] = "sampled"
    window: int = 1000
    margin: int = 6
    reserved: float | None = None
    seed: int = 0

    _history: deque[int] = field(default_factory=deque, init=False, repr=False)
    _random: np.random.Generator = field(init=False, repr=False)
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
        self._random = np.random.default_rng(self.seed)

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

    def steady(self, step: Step) -> int:
        """While nobody is looked at."""
        return UNTIL_AN_EVENT if self._is_blocked else while_nobody_joins(step)

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
        history = np.sort(np.array(self._history, dtype=np.int64))
        runs = self._columns([(r, r.num_computed_tokens) for r in step.running])
        futures: list[Growth] = []
        num_futures = self._num_futures(len(runs))

        def fits(one: Ints) -> bool:
            # A future is drawn when it is looked at: most heads fail in the first.
            for index in range(num_futures):
                if index == len(futures):
                    futures.append(self._future(runs, history, step))
                futures[index] = futures[index].joined(self._future(one, history, step))
                if futures[index].peak() > room:
                    return False
            return True

        while step.seats > 0 and (request := step.first_waiting) is not None:
            known = request.num_known_tokens
            left = known - step.cached_tokens(request)
            if step.admitted and left > step.tokens_left:
                break
            one = self._columns([(request, known)])
            # Alone it runs in any case: it was accepted because it fits.
            if not ((fits(one) or not len(runs)) and step.admit(request, left)):
                self._is_blocked = True
                break
            runs = np.concatenate([runs, one])

    def _num_futures(self, running: int) -> int:
        if self.lengths != "sampled":
            return 1
        return min(MOST_FUTURES, ENOUGH_SAMPLES // max(running, 1) + 1)

    def _columns(self, members: list[tuple[Request, int]]) -> Ints:
        """Of requests, with what they hold: prompt, held, emitted and most output tokens, a row."""
        most = expected_output if self.lengths == "predicted" else _output_limit
        rows = [(r.prompt_tokens, held, r.num_generated_tokens, most(r)) for r, held in members]
        flat = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=4 * len(rows))
        return flat.reshape(len(rows), 4)

    def _future(self, members: Ints, history: Ints, step: Step) -> Growth:
        """How these grow; of lengths that are drawn, one draw."""
        prompts, held, generated, outputs = members.T
        if self.lengths == "sampled":
            if len(members) == 1:
                output = self._draw_one(int(generated[0]), int(outputs[0]), history)
                outputs = np.array([output])
            else:
                outputs = self._draw(generated, outputs, history)
        return growth(prompts, held, outputs, step.block_size, self.margin)

    def _draw(self, generated: Ints, limits: Ints, history: Ints) -> Ints:
        """Lengths: of those that finished, longer than a request is already if it has begun."""
        chance = self._random.random(len(generated))
        # Between its length and its limit every longer one is as likely; linear in between.
        longer = np.searchsorted(history, generated, side="right")
        places = longer + chance * (len(history) - longer + 1)
        index = places.astype(np.int64)
        low = np.where(index == longer, generated, history[np.maximum(index - 1, 0)])
        high = np.where(index == len(history), limits, history[np.minimum(index, len(history) - 1)])
        begun = np.rint(low + (high - low) * (places - index)).astype(np.int64)
        fresh = history[(chance * len(history)).astype(np.int64)]
        return np.minimum(np.where(generated == 0, fresh, begun), limits)

    def _draw_one(self, generated: int, limit: int, history: Ints) -> int:
        """`_draw` of one length: most are of a head that is looked at, and arrays are slow."""
        chance = self._random.random()
        if generated == 0:
            return min(int(history[int(chance * len(history))]), limit)
        longer = int(np.searchsorted(history, generated, side="right"))
        place = longer + chance * (len(history) - longer + 1)
        index = int(place)
        low = generated if index == longer else int(history[index - 1])
        high = limit if index == len(history) else int(history[index])
        return min(round(low + (high - low) * (place - index)), limit)
