"""Loads of a design: requests of drawn lengths that come and go as under a policy.

How long a batch takes depends on its sizes and on what the device did in the seconds before. Stages
that measure one size after the other put other sizes before it than a load does.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from schedsim.experiments.design import Turn

LOAD_TOKENS = 1 << 17
LOAD_TURNS = 400
"""A load ends after so many tokens of prompts or so many iterations: seconds of an 8B model.

Of an engine with few seats one context each, or `TURNS_OF_A_SEAT`, are enough.
"""

TURNS_OF_A_SEAT = 16

COUNTED = 8
"""Of decodes alone each so manieth iteration counts: they hardly differ from those before, and are
many."""

OUTPUTS = (16, 512)
"""Tokens that a request is given, at least and at most."""

PROMPTS = ((32, 512), (256, 2048), (1024, 8192))
"""The shortest and the longest prompt of a load: chats, conversations, documents."""


class Load(NamedTuple):
    """How requests are batched, and how many there are.

    An iteration has up to `budget` tokens, decodes included. With `whole` a prompt runs at once and
    no decode beside it. Where there is a `group`, so many begin together and leave together, and
    only then the next ones begin. A request comes in `every` so many iterations; 0: one always
    waits.
    """

    budget: int
    whole: bool = False
    group: int = 0
    every: int = 0


LOADS = (
    Load(512),
    Load(2048),
    Load(2048, every=4),
    Load(2048, every=24),
    Load(16384, whole=True, every=6),
    Load(65536, whole=True, group=16),
)
"""As `sarathi` and `vllm` batch with a queue, `vllm` under a load and a light one, `vllm-v0` and
`static`."""


class Room(NamedTuple):
    """What a load may use at most.

    `budget` are tokens of an iteration, `slots` those of the cache, of which a request of a prompt
    and an output has `held`; `prompt` and `output` are the tokens of the longest ones.
    """

    budget: int
    seats: int
    slots: float
    prompt: int
    output: int
    held: Callable[[int, int], int]


class LoadWriter:
    """Writes the iterations of a load; `request` makes a request of a prompt and an output."""

    def __init__(
        self,
        load: Load,
        prompts: tuple[int, int],
        room: Room,
        request: Callable[[int, int], int],
        rng: np.random.Generator,
    ) -> None:
        self._load = load
        self._budget = min(load.budget, room.budget)
        self._seats = min(room.seats, load.group or room.seats, self._budget)
        self._room = room
        self._request = request
        self._rng = rng
        longest = min(prompts[1], room.prompt, self._budget if load.whole else room.prompt)
        self._prompts = (min(prompts[0], longest), longest)
        self._outputs = (min(OUTPUTS[0], room.output), min(OUTPUTS[1], room.output))
        self._decoding: dict[int, int] = {}  # the decodes that each has still to run
        self._held: dict[int, int] = {}
        self._begun: tuple[int, int, int] | None = None  # request, tokens of it left, output
        self._came = 0
        self._is_open = True  # whether requests may still begin, or the group is under way
        self._next = self._log_uniform(self._prompts), self._log_uniform(self._outputs)

    def turns(self) -> list[Turn]:
        """The iterations, of which the first is in an empty engine; none where nothing fits."""
        seats = self._room.seats
        most_tokens = min(LOAD_TOKENS, seats * self._room.prompt)
        most_turns = min(LOAD_TURNS, TURNS_OF_A_SEAT * seats)
        turns: list[Turn] = []
        computed = 0
        while computed < most_tokens and len(turns) < most_turns:
            turn = self._turn(len(turns))
            if not (turn.chunks or turn.decodes):
                break
            turns.append(turn)
            computed += sum(count for _, count in turn.chunks)
        return turns

    def _turn(self, number: int) -> Turn:
        gone = tuple(request for request, left in self._decoding.items() if not left)
        for request in gone:
            del self._decoding[request], self._held[request]
        if not self._held:
            self._is_open = True
        ended: dict[int, int] = {}
        chunks = self._chunks(number, ended)
        decodes = bool(self._decoding) and not (self._load.whole and chunks)
        if decodes:
            self._decoding = {request: left - 1 for request, left in self._decoding.items()}
            self._is_open = not self._load.group
        self._decoding |= ended
        counts = bool(chunks) or number % COUNTED == 0
        return Turn(gone, tuple(chunks), decodes, counts=counts)

    def _chunks(self, number: int, ended: dict[int, int]) -> list[tuple[int, int]]:
        """The chunks of an iteration; those whose prompts end with it join `ended`."""
        left = self._budget - (0 if self._load.whole else len(self._decoding))
        chunks: list[tuple[int, int]] = []
        while left > 0:
            if self._begun is None and not self._begin(number, left, bool(chunks)):
                break
            assert self._begun is not None
            request, remaining, output = self._begun
            size = min(remaining, left)
            chunks.append((request, size))
            left -= size
            self._begun = (request, remaining - size, output) if size < remaining else None
            if self._begun is None:
                ended[request] = output
        return chunks

    def _begin(self, number: int, left: int, is_later: bool) -> bool:
        """Let the next request in if there is one, and room for it."""
        load, (prompt, output) = self._load, self._next
        held = self._room.held(prompt, output)
        if (
            not self._is_open
            or (load.every and self._held and self._came > number // load.every)
            or len(self._held) == self._seats
            or sum(self._held.values()) + held > self._room.slots
            or (load.whole and is_later and prompt > left)
        ):
            return False
        request = self._request(prompt, output)
        self._begun = request, prompt, output
        self._held[request] = held
        self._came += 1
        if not load.group or len(self._held) == self._seats:
            output = self._log_uniform(self._outputs)
        self._next = self._log_uniform(self._prompts), output
        return True

    def _log_uniform(self, bounds: tuple[int, int]) -> int:
        low, high = bounds
        return round(low * (high / low) ** self._rng.random())
