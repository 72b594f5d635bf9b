"""`tgi`: the router of Hugging Face's text-generation-inference.

Source: text-generation-inference, `backends/v3/src/{backend,queue}.rs`, read at 1d0847a and
120d577; `chunking` (there `support_chunking`, at db931fc) from notes on that source.
Needs to know: the output limit of each request.
"""

import math
from collections import deque
from dataclasses import dataclass, field
from typing import ClassVar

from schedsim.errors import ConfigError
from schedsim.policies.base import Policy
from schedsim.policies.reserving import can_reserve, fits_budget, tokens_to_limit
from schedsim.request import Request
from schedsim.scheduler.step import Step


@dataclass(slots=True)
class TGI(Policy):
    """A running batch decodes; new requests are prefilled apart from it, and join it afterwards.

    Admission takes the slots of prompt and output limit, so nobody is ever preempted; the first
    who does not fit into memory or the prefill budget (the token budget) ends it. While a batch
    runs, new requests are admitted only if at least `waiting_served_ratio` times as many as run
    can be, or after `max_waiting_tokens` tokens without a prefill; and a decode follows each such
    prefill. With `chunking` both thresholds are off: an iteration decodes, and prompts share what
    that leaves of the budget, the last one cut.

    TGI rounds the prefill budget up to whole blocks, which this leaves out.
    """

    name: ClassVar[str] = "tgi"

    waiting_served_ratio: float = 0.3
    max_waiting_tokens: int = 20
    chunking: bool = False

    _line: deque[Request] = field(default_factory=deque, init=False, repr=False)
    _tokens_since_prefill: int = field(default=1, init=False, repr=False)
    _owes_decode: bool = field(default=False, init=False, repr=False)

    def __post_init__(self) -> None:
        if not 0.0 <= self.waiting_served_ratio < math.inf:
            raise ConfigError(
                f"policy {self.name!r}: waiting_served_ratio={self.waiting_served_ratio} must be "
                "finite and not negative"
            )
        if self.max_waiting_tokens < 0:
            raise ConfigError(
                f"policy {self.name!r}: max_waiting_tokens={self.max_waiting_tokens} is below 0"
            )

    def default_token_budget(self, max_model_len: int) -> int:
        """The launcher's default, and room for the longest prompt, which it demands."""
        return max(max_model_len, 4096)

    def accept(self, request: Request, step: Step) -> bool:
        """Refuse what could never be admitted."""
        if not self.chunking and not fits_budget(request, request.prompt_tokens, step):
            return False
        return can_reserve(request, tokens_to_limit(request), step)

    def schedule(self, step: Step) -> None:
        """Prefill new requests if it is their turn, else decode."""
        if self.chunking:
            step.run_decodes()
            step.run_prefills()
            step.admit_waiting()
        elif not (self._may_prefill(step) and self._prefill(step)):
            step.run_decodes()
            self._tokens_since_prefill += 1
            self._owes_decode = False

    def reservation(self, request: Request, tokens: int) -> int:
        """The prompt and every output token that may need a slot."""
        return tokens_to_limit(request)

    def on_arrival(self, request: Request, step: Step) -> None:
        """A line of its own, to look further than its head."""
        if not self.chunking:
            self._line.append(request)

    def _may_prefill(self, step: Step) -> bool:
        """Whether nothing runs, or enough new requests can join what does."""
        if not step.num_running:
            return True
        if self._owes_decode or not self._line or not step.seats:
            return False
        least = 1
        if self._tokens_since_prefill < self.max_waiting_tokens:
            least = max(int(step.num_running * self.waiting_served_ratio), 1)
        return len(self._line) >= least and self._can_admit(least, step)

    def _can_admit(self, count: int, step: Step) -> bool:
        """Whether the first `count` fit together; shared prefixes are counted for each."""
        if count > step.seats:
            return False
        tokens, blocks = step.tokens_left, step.free_blocks
        for request, _ in zip(self._line, range(count), strict=False):
            tokens -= request.prompt_tokens - step.cached_tokens(request)
            blocks -= step.blocks_to_admit(request, tokens_to_limit(request))
            if tokens < 0 or blocks < 0:
                return False
        return True

    def _prefill(self, step: Step) -> bool:
        """Admit in order; False if nobody was, as where free blocks are not in one piece."""
        others = step.num_running > 0
        while self._line and step.seats > 0:
            request = self._line[0]
            left = request.prompt_tokens - step.cached_tokens(request)
            if left > step.tokens_left or not step.admit(request, left, tokens_to_limit(request)):
                break
            self._line.popleft()
        if not step.admitted:
            return False
        self._owes_decode = others
        self._tokens_since_prefill = 1
        return True
