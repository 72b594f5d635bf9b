"""Loads of a design: requests of drawn lengths that come and go as under a policy.

How long a batch takes depends on its sizes and on what the device did in the seconds before. Stages
that measure one size after the other put other sizes before it than a load does.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from schedsim.experiments.design import Turn, log_uniform

LOAD_TOKENS = 1 << 17
LOAD_TURNS = 400
"""A load ends after so many tokens of prompts or so many iterations: seconds of an 8B model."""

TURNS_OF_A_SEAT = 16
"""Where there are few seats, so many iterations for each, and one longest prompt, are enough."""

COUNT_EVERY = 8
"""Of the iterations of decodes alone one in so many counts: there are many, and much alike."""

OUTPUTS = (16, 512)
SHORT_OUTPUTS = (8, 64)
"""Tokens that a request is given, at least and at most."""

PROMPTS = ((32, 512), (256, 2048), (1024, 8192))
"""The shortest and the longest prompt of a load: chats, conversations, documents."""


class Load(NamedTuple):
    """How requests are batched, and how many there are.

    An iteration has up to `budget` tokens, decodes included. With `whole` a prompt runs at once and
    no decode beside it. One request comes `every` so many iterations; None: one always waits. Only
    with `whole`: of a `group` so many begin together and leave together, then the next ones begin.
    """

    budget: int
    whole: bool = False
    every: int | None = None
    group: int | None = None
    outputs: tuple[int, int] = OUTPUTS


LOADS = (
    Load(512),
    Load(2048),
    Load(2048, every=4),
    Load(2048, every=24),
    Load(16384, whole=True, every=6),
    Load(65536, whole=True, group=16, outputs=SHORT_OUTPUTS),
)
"""As `sarathi` and `vllm` batch with a queue, `vllm` under a load and a light one, `vllm-v0` and
`static`."""


class Room(NamedTuple):
    """What a load may use at most.

    `budget` are tokens of an iteration, `slots` those of the cache, of which a request of a prompt
    and an output has `held`; one of the longest, `prompt` and `output`, has no more than all.
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
        self._outputs = (min(load.outputs[0], room.output), min(load.outputs[1], room.output))
        self._decoding: dict[int, int] = {}  # the decodes that each has still to run
        self._held: dict[int, int] = {}
        self._begun: tuple[int, int] | None = None  # whose prompt is not all computed, and the rest
        self._came = 0
        self._next_prompt = self._drawn(self._prompts)
        self._output = 0  # of who came last, and of all its group

    def turns(self) -> list[Turn]:
        """The iterations, of which the first is in an empty engine."""
        seats = self._room.seats
        most_tokens = min(LOAD_TOKENS, seats * self._room.prompt)
        most_turns = min(LOAD_TURNS, TURNS_OF_A_SEAT * seats)
        turns: list[Turn] = []
        computed = 0
        while computed < most_tokens and len(turns) < most_turns:
            turns.append(self._turn(len(turns)))
            computed += sum(count for _, count in turns[-1].chunks)
        return turns

    def _turn(self, number: int) -> Turn:
        gone = tuple(request for request, left in self._decoding.items() if not left)
        for request in gone:
            del self._decoding[request], self._held[request]
        ended: dict[int, int] = {}
        chunks = self._chunks(number, ended)
        decodes = bool(self._decoding) and not (self._load.whole and chunks)
        if decodes:
            self._decoding = {request: left - 1 for request, left in self._decoding.items()}
        self._decoding |= ended
        counts = bool(chunks) or number % COUNT_EVERY == 0
        return Turn(gone, tuple(chunks), decodes, counts=counts)

    def _chunks(self, number: int, ended: dict[int, int]) -> list[tuple[int, int]]:
        """The chunks of an iteration; who computes the last of its prompt joins `ended`."""
        left = self._budget - (0 if self._load.whole else len(self._decoding))
        chunks: list[tuple[int, int]] = []
        while left > 0:
            if self._begun is None and self._may_begin(number, left):
                self._begun = self._begin()
            if self._begun is None:
                break
            request, remaining = self._begun
            size = min(remaining, left)
            chunks.append((request, size))
            left -= size
            self._begun = (request, remaining - size) if size < remaining else None
            if self._begun is None:
                ended[request] = self._output
        return chunks

    def _may_begin(self, number: int, left: int) -> bool:
        """Whether there is a next request, and room for it."""
        load = self._load
        is_there = load.every is None or not self._held or self._came <= number // load.every
        held = self._room.held(self._next_prompt, self._outputs[1])
        return (
            is_there
            and len(self._held) < self._seats
            and sum(self._held.values()) + held <= self._room.slots
            and not (load.whole and self._next_prompt > left)
        )

    def _begin(self) -> tuple[int, int]:
        if not (self._load.group and self._held):
            self._output = self._drawn(self._outputs)
        prompt = self._next_prompt
        request = self._request(prompt, self._output)
        self._held[request] = self._room.held(prompt, self._output)
        self._came += 1
        self._next_prompt = self._drawn(self._prompts)
        return request, prompt

    def _drawn(self, bounds: tuple[int, int]) -> int:
        return round(float(log_uniform(*bounds, 1, self._rng)[0]))
