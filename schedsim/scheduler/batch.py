"""`Batch`: the decision for one iteration, and `BatchShape`, what a step-time model sees of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from operator import attrgetter
from typing import NamedTuple

from schedsim.request import Request

_by_order = attrgetter("order")


@dataclass(slots=True)
class BatchShape:
    """The sizes that an iteration's duration depends on.

    A prefill chunk of `chunk` tokens with `context` tokens in the cache before it adds `chunk` to
    `prefill_tokens`, `context` to `prefill_context` and `chunk · (context + chunk / 2)` to
    `prefill_attention`; the largest `context + chunk` is `prefill_longest`. A decode with n known
    tokens (n - 1 in the cache, the newest fed in) adds 1 to `decode_requests` and n to
    `decode_context`; the largest n is `longest_context`.
    `padding_requests` and `padding_context` count finished members of a static batch that still
    take part in it, with all their tokens: they cost what a decode costs and are not in the decode
    figures. `sampled` is the number of tokens that the iteration emits, `swapped_blocks` that of KV
    blocks copied to or from the host, `copied_blocks` that of KV blocks moved to another place on
    the device.
    """

    prefill_requests: int = 0
    prefill_tokens: int = 0
    prefill_context: int = 0
    prefill_attention: float = 0.0
    prefill_longest: int = 0
    decode_requests: int = 0
    decode_context: int = 0
    longest_context: int = 0
    padding_requests: int = 0
    padding_context: int = 0
    sampled: int = 0
    swapped_blocks: int = 0
    copied_blocks: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing runs."""
        return not (self.prefill_requests or self.decode_requests)

    def add_chunk(self, tokens: int, context: int = 0) -> None:
        """A prefill chunk after `context` tokens in the cache; what it samples is not counted."""
        self.prefill_requests += 1
        self.prefill_tokens += tokens
        self.prefill_context += context
        self.prefill_attention += tokens * (context + tokens / 2)
        self.prefill_longest = max(self.prefill_longest, context + tokens)


class Chunk(NamedTuple):
    """A prefill chunk: `tokens` of `request`, after `context` tokens that are in the cache."""

    request: Request
    tokens: int
    context: int


class TransferKind(StrEnum):
    """From where to where blocks are copied."""

    SWAP_OUT = "swapped_out"
    SWAP_IN = "swapped_in"
    MOVE = "moved"


class Transfer(NamedTuple):
    """Blocks of a request to copy, (source, target) each: out to the host, in, or on the device.

    All sources are read before a target is written.
    """

    request: Request
    kind: TransferKind
    pairs: list[tuple[int, int]]


class ScheduledTokens(NamedTuple):
    """One entry of an expanded batch. `kind` is `run`, `new` or `resume`, as vLLM counts them."""

    request: Request
    tokens: int
    kind: str
    context: int


@dataclass(slots=True)
class Batch(BatchShape):
    """What runs in one iteration: the decode set as a whole (`runs_decodes`) and prefill chunks.

    `decodes` are the members of the decode set that run, in running order, and `first_tokens` those
    of the prefills that compute all their known tokens and so emit one. `transfers` are to be made
    one after the other, before anything runs. `discarded` are requests whose token is thrown away,
    because they turned out to have ended while the batch was in flight.
    """

    iteration: int = 0
    decided_at: float = 0.0
    runs_decodes: bool = False
    decodes: Sequence[Request] = ()
    prefills: Sequence[Chunk] = ()
    first_tokens: Sequence[Request] = ()
    admitted: Sequence[Request] = ()
    preempted: Sequence[Request] = ()
    transfers: Sequence[Transfer] = ()
    discarded: Sequence[Request] = ()

    def expand(self) -> list[ScheduledTokens]:
        """Every request of the batch with its tokens, in running order; until the next decision."""
        admitted = {request.id for request in self.admitted}
        entries = []
        for chunk in self.prefills:
            kind = "run"
            if chunk.request.id in admitted:
                kind = "resume" if chunk.request.preemptions else "new"
            entries.append(ScheduledTokens(chunk.request, chunk.tokens, kind, chunk.context))
        if self.runs_decodes:
            entries += [
                ScheduledTokens(request, 1, "run", request.num_computed_tokens - 1)
                for request in self.decodes
            ]
        entries.sort(key=lambda entry: entry.request.order)
        return entries


@dataclass(slots=True)
class Completion:
    """What an iteration brought; `finished` is in running order."""

    batch: Batch
    finished: list[Request]

    def sampled(self) -> list[Request]:
        """Who got a token, in running order; until the next decision. O(n)."""
        batch = self.batch
        sampled = [*batch.decodes, *batch.first_tokens]
        if batch.discarded:
            discarded = {request.id for request in batch.discarded}
            sampled = [request for request in sampled if request.id not in discarded]
        return sampled if not batch.first_tokens else sorted(sampled, key=_by_order)
