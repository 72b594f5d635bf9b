"""`sglang`: SGLang's scheduler, prefill first, admission by the share of the limit that is used.

Source: SGLang 0.5.23, `managers/{scheduler,schedule_policy,schedule_batch}.py`,
`scheduler_components/new_token_ratio_tracker.py` and `mem_cache/prefill_budget.py`, read in the
source; for dfs-weight `schedule_policy.py` of several versions, where its walk is the same but for
equal branches: there the older one goes first, here that of the first in line. Left out: mixed
chunks, priorities, the overlapped loop (`--decision-lag 1` is vLLM's), the orders random,
routing-key, hrrn, shortest-prefill-first.
Needs to know: the output limit of each request, and what the prefix cache holds of it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import ClassVar, Literal

from schedsim.errors import ConfigError
from schedsim.policies.base import Policy
from schedsim.policies.prefix_order import heaviest_subtree_first, longest_prefix_first
from schedsim.policies.rests import Rests
from schedsim.request import Request
from schedsim.scheduler.step import Step

CLIP = 4096
"""More output tokens than these are not reckoned with."""

MOST_MATCHED = 128
"""With more waiting requests, lpm does not look prefixes up: the order is by arrival."""


@dataclass(slots=True)
class _NewTokenRatio:
    """The share of its remaining limit that a running request is expected to emit.

    It begins at `init`, falls with every decode to 14 % of that over 600 of them, and is what the
    running ones have shown where memory was short.
    """

    init: float
    _start: float = -1.0
    _decodes: int = 0

    def reset(self) -> None:
        """Begin anew: nothing runs or waits."""
        self._start, self._decodes = self.init, 0

    def note_decode(self) -> None:
        """An iteration that decodes and retracts nobody."""
        self._decodes += 1

    def note_retraction(self, remaining: list[Request]) -> None:
        """Who is left has emitted so much of its limit, and shall emit 20 tokens more."""
        emitted = sum(request.num_generated_tokens for request in remaining)
        limits = sum(request.output_limit for request in remaining)
        self._start = min((emitted + 20 * len(remaining)) / (limits + 1), 1.0)
        self._decodes = 0

    @property
    def value(self) -> float:
        """The ratio now."""
        if not self._decodes:
            return self._start
        least = 0.14 * self.init
        return max(self._start - self._decodes * (self.init - least) / 600, least)


@dataclass(slots=True)
class SGLang(Policy):
    """An iteration prefills if anyone can be admitted, else it decodes everyone.

    Those who wait are looked at in the `order` of arrival (fcfs), longest prefix in the cache first
    (lpm), along the branches of the cache's tree, the one that most wait for first (dfs-weight), or
    largest output limit first (lof). With lpm, of waiting requests that begin alike and are not
    cached only the first is prefilled now. A request is admitted if what it has to compute
    and its limit fit beside the expected rest of all who run: of their limits the new token ratio,
    which begins at 0.7 · `conservativeness`. After one that does not fit nobody is looked at until
    somebody has left. What nothing runs beside is admitted in any case.

    Prefills share `chunk_size` tokens. One prompt at most is cut, at a page, and goes on before
    anything else. With 0 no prompt is cut, and only the first may exceed the token budget. Where
    decodes lack a page, those with the fewest output tokens are retracted, of these the longest
    prompt; they are computed again, after all who wait. SGLang aborts the last request left; here
    a cut prompt is retracted for it.
    """

    name: ClassVar[str] = "sglang"
    default_memory: ClassVar[str] = "radix"

    order: Literal["fcfs", "lpm", "dfs-weight", "lof"] = "fcfs"
    chunk_size: int = 8192
    conservativeness: float = 1.0

    _ratio: _NewTokenRatio = field(init=False, repr=False)
    _places: dict[int, tuple[int, int]] = field(default_factory=dict, init=False, repr=False)
    _next_place: int = field(default=0, init=False, repr=False)
    _is_full: bool = field(default=False, init=False, repr=False)
    _rests: Rests = field(default_factory=lambda: Rests(CLIP), init=False, repr=False)

    def __post_init__(self) -> None:
        if self.chunk_size < 0:
            raise ConfigError(f"policy {self.name!r}: chunk_size={self.chunk_size} is below 0")
        if not 0.0 <= self.conservativeness < inf:
            raise ConfigError(
                f"policy {self.name!r}: conservativeness={self.conservativeness} must be finite "
                "and not negative"
            )
        self._ratio = _NewTokenRatio(min(0.7 * self.conservativeness, 1.0))
        self._ratio.reset()

    def default_token_budget(self, max_model_len: int) -> int:
        """SGLang's."""
        return 16384

    def accept(self, request: Request, step: Step) -> bool:
        """Refuse everything if chunks are to be smaller than a page, at which prompts are cut."""
        unit = min(self.chunk_size, step.token_budget)
        if not self.chunk_size or unit >= step.block_size:
            return True
        step.reject(
            request,
            f"prompts are cut at pages of {step.block_size} tokens, and an iteration computes "
            f"{unit} at most",
        )
        return False

    def schedule(self, step: Step) -> None:
        """Prefill, else decode."""
        self._rests.note_first_tokens(step.prefilling)
        if step.num_prefilling or (step.num_waiting and not self._is_full):
            self._prefill(step)
        if not step.chunks:
            self._decode(step)

    def key(self, request: Request) -> tuple[int, int]:
        """By the time it began to wait, or by limit first."""
        preemptions, place = self._places.get(request.id, (-1, 0))
        if preemptions != request.preemptions:
            place = self._next_place
            self._next_place += 1
            self._places[request.id] = request.preemptions, place
        return (-request.output_limit if self.order == "lof" else 0), place

    def victim(self, needy: Request, step: Step) -> Request | None:
        """The decode with the fewest output tokens, of these the longest prompt, the latest."""
        prefilling = step.prefilling
        decoding = [request for request in step.running if request not in prefilling]
        if decoding == [needy] and prefilling:
            return prefilling[-1]
        return min(decoding, key=_standing, default=needy)

    def on_admit(self, request: Request, step: Step) -> None:
        """It counts among those who run."""
        self._rests.note_admitted(request)

    def on_preempt(self, request: Request, step: Step) -> None:
        """Memory came free."""
        self._is_full = False
        self._rests.note_left(request)

    def on_finish(self, request: Request, step: Step) -> None:
        """Memory and a seat came free."""
        self._is_full = False
        self._rests.note_left(request)
        del self._places[request.id]
        if not step.num_running and not step.num_waiting:
            self._ratio.reset()

    def _decode(self, step: Step) -> None:
        before = step.tokens_left
        step.run_decodes()
        if step.tokens_left < before:
            self._rests.note_decode()
        if step.preempted:
            prefilling = step.prefilling
            self._ratio.note_retraction([r for r in step.running if r not in prefilling])
        elif step.tokens_left < before:
            self._ratio.note_decode()

    def _prefill(self, step: Step) -> None:
        """Go on with the prompt that was cut, then admit in order."""
        chunk_left = min(self.chunk_size or step.token_budget, step.token_budget)
        prefilling = step.prefilling
        promised = self._rest_of_decodes(prefilling, step) * self._ratio.value
        for request in prefilling:
            tokens = self._next_chunk(request, chunk_left, promised, step)
            if tokens > 0 and step.run(request, tokens):
                chunk_left -= _whole_pages(tokens, step)
                promised += step.block_size
                if tokens == request.num_tokens_left:
                    promised += min(request.output_limit, CLIP)
        if self._is_full:
            return
        for request in self._line(step):
            if chunk_left <= 0:
                break
            left = request.num_known_tokens - step.cached_tokens(request)
            if not self._has_room(request, left, promised, step):
                self._is_full = step.num_running > 0
                break
            tokens = self._cut(left, chunk_left, step)
            if not tokens:
                break
            if not step.admit(request, tokens):
                self._is_full = step.num_running > 0
                break
            chunk_left -= _whole_pages(tokens, step)
            promised += step.block_size
            if tokens == left:
                promised += min(request.output_limit, CLIP)

    def _rest_of_decodes(self, prefilling: list[Request], step: Step) -> int:
        """Output tokens that those who decode may emit yet, `CLIP` of each at most.

        O(unfinished prefills) where nothing is in flight; else tokens that a decision does not see
        yet would have to be followed, and everybody is looked at.
        """
        if step.decision_lag:
            of = self._rests.of
            return sum(map(of, step.running)) - sum(map(of, prefilling))
        return self._rests.of_decodes(prefilling)

    def _next_chunk(self, request: Request, chunk_left: int, promised: float, step: Step) -> int:
        """What a cut prompt computes now: what is left beside the others, if that is anything."""
        page = step.block_size
        tokens = min(request.num_tokens_left, chunk_left)
        beside = int(step.free_blocks * page - promised)
        if beside > 0:
            tokens = min(tokens, beside)
        slots = (step.blocks_held(request) + step.free_blocks) * page
        return min(tokens, slots - request.num_computed_tokens)

    def _line(self, step: Step) -> Iterator[Request]:
        """Who waits, in order; each is admitted before the next is asked for."""
        if self.order == "lpm" and step.num_waiting <= MOST_MATCHED:
            yield from longest_prefix_first(step)
        elif self.order == "dfs-weight":
            yield from heaviest_subtree_first(step)
        else:
            while (request := step.first_waiting) is not None:
                yield request

    def _has_room(self, request: Request, left: int, promised: float, step: Step) -> bool:
        """Whether a seat is free, and memory beside what all are expected to need."""
        if step.seats <= 0:
            return False
        if not step.num_running:
            return True
        cached = request.num_known_tokens - left
        free = step.free_blocks - step.blocks_to_admit(request, cached)
        return left + self._rests.of(request) + step.block_size < free * step.block_size - promised

    def _cut(self, left: int, chunk_left: int, step: Step) -> int:
        """Tokens that a prompt with `left` ones to compute gets of the `chunk_left`."""
        pages = _whole_pages(left, step)
        if not self.chunk_size:
            return left if not step.chunks or pages < chunk_left else 0
        return left if pages <= chunk_left else chunk_left // step.block_size * step.block_size


def _standing(request: Request) -> tuple[int, int, int]:
    """Smallest is who is retracted first."""
    return request.num_generated_tokens, -request.prompt_tokens, -request.order


def _whole_pages(tokens: int, step: Step) -> int:
    return step.blocks_for(tokens) * step.block_size
