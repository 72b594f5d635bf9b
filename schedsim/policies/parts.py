"""The parts that `composed` puts together: orders, admission rules and victim rules, by name."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from schedsim.policies.peak import expected_output, growth
from schedsim.policies.reserving import tokens_to_limit
from schedsim.request import Request, Status
from schedsim.scheduler.step import Step

Rank = Callable[[Request], float]
"""Smaller goes first; what it says of a waiting request stays."""


def _expected_rest(request: Request) -> int:
    return expected_output(request) - request.num_generated_tokens


ORDERS: dict[str, Rank] = {
    "fcfs": lambda request: 0,
    "sjf": expected_output,
    "srtf": _expected_rest,
    "shortest-prompt": lambda request: request.prompt_tokens,
    "las": lambda request: request.num_generated_tokens,
    "priority": lambda request: request.priority,
}
"""What comes first, before arrival: the shortest expected output, or rest of it, the shortest
prompt, the fewest tokens so far, the smallest priority."""


class Admission(ABC):
    """Whether there is memory for a waiting request."""

    __slots__ = ()

    reserves: bool = False
    """Whether it takes all that a request may need, so that nobody ever lacks a block."""

    @abstractmethod
    def fits(
        self, request: Request, tokens: int, step: Step, without: Sequence[Request] = ()
    ) -> bool:
        """Whether `request` may start with `tokens` tokens, if `without` did not run."""

    def room(self, request: Request, tokens: int) -> int:
        """Tokens that it gets room for."""
        return tokens

    def note_release(self) -> None:  # noqa: B027 (most look at the memory alone)
        """Somebody has left."""


class _Blocks(Admission):
    """Tests the blocks that admission takes."""

    __slots__ = ()

    def tested(self, request: Request, tokens: int, step: Step) -> int:
        """Tokens that must have blocks."""
        return self.room(request, tokens)

    def fits(
        self, request: Request, tokens: int, step: Step, without: Sequence[Request] = ()
    ) -> bool:
        need = step.blocks_to_admit(request, self.tested(request, tokens, step))
        return need <= step.free_blocks + sum(map(step.blocks_held, without))


class FirstChunk(_Blocks):
    """For the first chunk."""

    __slots__ = ()

    def tested(self, request: Request, tokens: int, step: Step) -> int:
        return step.cached_tokens(request) + tokens


class Whole(_Blocks):
    """For all known tokens; only those of the chunk are taken."""

    __slots__ = ()

    def tested(self, request: Request, tokens: int, step: Step) -> int:
        return request.num_known_tokens


class Reserve(_Blocks):
    """For prompt and output limit, which are taken."""

    __slots__ = ()

    reserves = True

    def room(self, request: Request, tokens: int) -> int:
        return tokens_to_limit(request)


class Peak(Admission):
    """For the peak of all who run, with their expected lengths; known tokens are taken.

    A request that does not fit is looked at again when somebody has left, as the peak stays the
    same until then. Nobody lacks a block if lengths are exact and prompts are not cut.
    """

    __slots__ = ("_refused",)

    def __init__(self) -> None:
        self._refused: Request | None = None

    def fits(
        self, request: Request, tokens: int, step: Step, without: Sequence[Request] = ()
    ) -> bool:
        if request is self._refused and not without:
            return False
        gone = {other.id for other in without}
        stay = [other for other in step.running if other.id not in gone]
        stay.append(request)
        growths = growth(
            [other.prompt_tokens for other in stay],
            [_held(other) for other in stay],
            [expected_output(other) for other in stay],
            step.block_size,
        )
        fits = len(stay) == 1 or growths.peak() <= step.total_blocks * step.block_size
        if not fits and not without:
            self._refused = request
        return fits

    def room(self, request: Request, tokens: int) -> int:
        return request.num_known_tokens

    def note_release(self) -> None:
        self._refused = None


def _held(request: Request) -> int:
    """Tokens after the iteration that is planned: with a decode's next, or the whole prompt."""
    decodes = request.status is Status.RUNNING and request.num_tokens_left == 1
    return request.num_computed_tokens + 1 if decodes else request.num_known_tokens


ADMISSIONS: dict[str, type[Admission]] = {
    "chunk": FirstChunk,
    "whole": Whole,
    "reserve": Reserve,
    "peak": Peak,
}

Badness = Callable[[Request, Step], tuple[float, ...]]
"""Of those who run the one with the largest is preempted; of equals the latest admitted."""

VICTIMS: dict[str, Badness] = {
    "last": lambda request, step: (),
    "longest": lambda request, step: (_expected_rest(request),),
    "fewest": lambda request, step: (-request.num_generated_tokens, request.prompt_tokens),
    "largest": lambda request, step: (step.blocks_held(request),),
}
"""The latest admitted; the longest expected rest; the fewest output tokens, then the longest
prompt; the most blocks. `worst`, the last in the order of admission, is not among them."""
