"""`trtllm`: TensorRT-LLM's in-flight batching, a capacity and a micro-batch scheduler.

Source: TensorRT-LLM, `cpp/tensorrt_llm/batch_manager/capacityScheduler.cpp` at 02a10fe and
`microBatchScheduler.cpp` at 0a949d3, read in the source. Beam search, LoRA pages, encoders and
disaggregation are left out.
Needs to know: the output limit of each request, for capacity guaranteed-no-evict.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from schedsim.errors import ConfigError
from schedsim.policies.base import Policy, while_full
from schedsim.policies.reserving import can_reserve, fits_budget, tokens_to_limit
from schedsim.request import Request, Status
from schedsim.scheduler.step import Step


@dataclass(slots=True)
class TRTLLM(Policy):
    """Decodes first, then prompts by arrival; who holds memory is decided before who runs.

    With `capacity` guaranteed-no-evict those are admitted who have memory to their output limit
    beside all others, and nobody is ever paused. With max-utilization those are who have blocks for
    their known tokens; where a running one lacks a block the latest arrival is paused (recompute),
    and nobody is admitted.

    The token budget is shared by decodes and prompts. `chunking` fcfs gives each prompt all it
    asks for, in turn; equal-progress gives all of them one more unit, again and again; what is cut
    is a multiple of `chunk_unit` tokens (by default a block). With none, a prompt that does not fit
    whole ends admission. A prompt whose first missing block somebody else is just
    computing waits for it, where there is a prefix cache.
    """

    name: ClassVar[str] = "trtllm"
    running_order = "arrival"

    capacity: Literal["guaranteed-no-evict", "max-utilization"] = "guaranteed-no-evict"
    chunking: Literal["fcfs", "equal-progress", "none"] = "fcfs"
    chunk_unit: int | None = None

    _line: deque[Request] = field(default_factory=deque, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.chunk_unit is not None and self.chunk_unit < 1:
            raise ConfigError(f"policy {self.name!r}: chunk_unit={self.chunk_unit} is below 1")
        if self.chunk_unit is not None and self.chunking == "none":
            raise ConfigError(
                f"policy {self.name!r}: chunk_unit={self.chunk_unit} is for a chunking, which "
                "chunking=none turns off"
            )

    def default_token_budget(self, max_model_len: int) -> int:
        """TensorRT-LLM's; without chunks every prompt fits."""
        return max(max_model_len, 8192) if self.chunking == "none" else 8192

    def accept(self, request: Request, step: Step) -> bool:
        """Refuse what could never run, or never again."""
        longest = tokens_to_limit(request)
        at_once = request.prompt_tokens if self._reserves else longest
        if self.chunking == "none":
            if not fits_budget(request, at_once, step):
                return False
        elif self._unit(step) > step.token_budget and at_once > step.token_budget:
            step.reject(
                request,
                f"{at_once} tokens are computed in units of {self._unit(step)}, and the token "
                f"budget is {step.token_budget}",
            )
            return False
        return not self._reserves or can_reserve(request, longest, step)

    def schedule(self, step: Step) -> None:
        """Decodes within the budget, then prompts: those under way, then new ones."""
        step.run_running()
        prompts = step.prefilling
        held = len(prompts)
        if not held and (step.seats <= 0 or not step.num_waiting):
            return
        if not step.preempted:
            prompts += self._candidates(step, prompts)
        shares = self._shares([self._left(request, step) for request in prompts], step)
        for request, tokens in zip(prompts[:held], shares, strict=False):
            if tokens:
                step.run(request, tokens)
        for request, tokens in zip(prompts[held:], shares[held:], strict=True):
            if tokens and not step.admit(request, tokens, self._room(request)):
                break

    def chunk(self, request: Request, tokens: int, step: Step) -> int:
        """None while decodes have their turn."""
        return 0

    def steady(self, step: Step) -> int:
        """While there is no room for anybody."""
        return while_full(step)

    def on_arrival(self, request: Request, step: Step) -> None:
        """A line of its own, to look further than its head."""
        self._line.append(request)

    def on_admit(self, request: Request, step: Step) -> None:
        """Out of the line."""
        self._line.remove(request)

    def on_preempt(self, request: Request, step: Step) -> None:
        """Back to its place by arrival."""
        place = 0
        while place < len(self._line) and self._line[place].id < request.id:
            place += 1
        self._line.insert(place, request)

    @property
    def _reserves(self) -> bool:
        return self.capacity == "guaranteed-no-evict"

    def _room(self, request: Request) -> int:
        return tokens_to_limit(request) if self._reserves else request.num_known_tokens

    def _unit(self, step: Step) -> int:
        return step.block_size if self.chunk_unit is None else self.chunk_unit

    def _left(self, request: Request, step: Step) -> int:
        """Tokens that a prompt has to compute."""
        if request.status is Status.RUNNING or request.is_swapped:
            return request.num_tokens_left
        return request.num_known_tokens - step.cached_tokens(request)

    def _candidates(self, step: Step, under_way: list[Request]) -> list[Request]:
        """The waiting requests that have memory beside each other, by arrival."""
        blocks, seats = step.free_blocks, step.seats
        produced: set[int | None] = set()
        if step.has_prefix_cache:
            produced = {self._missing(request, step) for request in under_way} - {None}
        found: list[Request] = []
        for request in self._in_line():
            if len(found) >= seats or step.tokens_left <= 0:
                break
            if step.has_prefix_cache:
                key = self._missing(request, step)
                if key in produced:
                    continue
                if key is not None:
                    produced.add(key)
            blocks -= step.blocks_to_admit(request, self._room(request))
            if blocks < 0:
                break
            found.append(request)
        return found

    def _in_line(self) -> Iterator[Request]:
        """Who waits; a paused request that has ended with a token in flight is dropped."""
        line = self._line
        while line and line[0].status is Status.FINISHED:
            line.popleft()
        return (request for request in line if request.status is not Status.FINISHED)

    def _missing(self, request: Request, step: Step) -> int | None:
        """The content of the first block that is not in the cache yet."""
        computed = request.num_computed_tokens
        if request.status is not Status.RUNNING:
            computed = step.cached_tokens(request)
        return step.content_key(request, computed // step.block_size)

    def _shares(self, wanted: list[int], step: Step) -> list[int]:
        """Tokens for each prompt, of as many as it wants."""
        room = max(step.tokens_left, 0)
        if self.chunking != "none" and sum(wanted) <= room:
            return wanted
        unit = self._unit(step)
        if self.chunking == "equal-progress":
            return _equal_shares(wanted, room, unit)
        shares = []
        for tokens in wanted:
            share = tokens if tokens <= room else room // unit * unit
            if self.chunking == "none" and tokens > room:
                share = room = 0
            room -= share
            shares.append(share)
        return shares


def _equal_shares(wanted: list[int], room: int, unit: int) -> list[int]:
    """One unit for each in turn, as long as it fits; a last one may be smaller."""
    shares = [0] * len(wanted)
    given = True
    while given and room > 0:
        given = False
        for index, tokens in enumerate(wanted):
            more = min(unit, tokens - shares[index])
            if 0 < more <= room:
                shares[index] += more
                room -= more
                given = True
    return shares
