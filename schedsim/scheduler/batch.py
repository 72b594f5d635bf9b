"""`Batch`: the decision for one iteration, and `BatchShape`, what a step-time model sees of it."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from schedsim.request import Request


@dataclass(slots=True)
class BatchShape:
    """The sizes that an iteration's duration depends on.

    A prefill chunk of `chunk` tokens with `context` tokens in the cache before it adds `chunk` to
    `prefill_tokens`, `context` to `prefill_context` and `chunk · (context + chunk / 2)` to
    `prefill_attention`. A decode with n known tokens (n - 1 in the cache, the newest fed in) adds
    1 to `decode_requests` and n to `decode_context`. `padding_requests` and `padding_context`
    count finished members of a static batch that still take part in it: they cost what a decode
    costs and are not in the decode figures. `sampled` is the number of tokens the iteration emits.
    """

    prefill_requests: int = 0
    prefill_tokens: int = 0
    prefill_context: int = 0
    prefill_attention: float = 0.0
    decode_requests: int = 0
    decode_context: int = 0
    padding_requests: int = 0
    padding_context: int = 0
    sampled: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing runs."""
        return not (self.prefill_requests or self.decode_requests)


class Chunk(NamedTuple):
    """A prefill chunk: `tokens` of `request`, after `context` tokens that are in the cache."""

    request: Request
    tokens: int
    context: int


class ScheduledTokens(NamedTuple):
    """One entry of an expanded batch. `kind` is `run`, `new` or `resume`, as vLLM counts them."""

    request: Request
    tokens: int
    kind: str
    context: int
