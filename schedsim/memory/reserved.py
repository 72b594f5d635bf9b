"""`ReservedKVCache`: a request lies in one piece, taken for tokens that are yet to come."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from schedsim.memory.base import BlockPairs, MemoryUse, Move
from schedsim.memory.calendar import DecodeCalendar
from schedsim.memory.holes import Range, Space
from schedsim.request import Request

Overrun = Literal["move", "preempt"]


@dataclass(frozen=True, slots=True)
class Foresight:
    """For how many tokens a request gets room: the prompt and, by `mode`, of the output

    - `limit`: the output limit;
    - `predicted`: the prediction times (1 + `margin`), the limit where there is none;
    - `pow2`: the same rounded up to a power of two, without a margin;
    - `max`: whatever fits into `max_model_len`.

    A request that outgrows a prediction is expected to become twice as long, up to its limit.
    """

    mode: Literal["limit", "predicted", "pow2", "max"]
    max_model_len: int
    margin: float = 0.0

    def expected_tokens(self, request: Request, generated: int) -> int:
        """Prompt and output that `request` is expected to reach once it has `generated` tokens."""
        limit = request.output_limit
        output = limit
        predicted = request.foreseen_output
        if predicted is None:
            predicted = request.predicted_output
        if self.mode != "limit" and predicted is not None:
            output = max(1, math.ceil(predicted * (1 + self.margin)))
            while output <= generated and output < limit:
                output *= 2
        return request.prompt_tokens + min(output, limit)

    def reserved_tokens(self, request: Request, generated: int) -> int:
        """Tokens that it gets room for."""
        if self.mode == "max":
            return self.max_model_len
        expected = self.expected_tokens(request, generated)
        if self.mode == "pow2":
            output = expected - request.prompt_tokens
            expected = min(
                request.prompt_tokens + (1 << (output - 1).bit_length()), self.max_model_len
            )
        return expected


class ReservedKVCache(DecodeCalendar):
    """Every request holds one range of consecutive blocks, taken at admission by `foresight`.

    It is never longer than the whole memory allows, if that is enough for what is asked at the
    moment. A request that needs more than it foresaw is extended in place if the blocks after it
    are free. Else `overrun` says what happens: `move` copies it to a larger hole; with `preempt`,
    or if there is none, it has no room, and the policy says who is preempted. The new range is
    foreseen anew; where that is not free, it is the least that will do.

    Costs are those of `space`; a move is O(blocks copied).
    """

    in_one_piece = True
    moves_blocks = True
    reserves_growth = True

    def __init__(
        self,
        total_blocks: int,
        block_size: int,
        space: Space,
        foresight: Foresight,
        overrun: Overrun = "move",
        host_blocks: int = 0,
    ) -> None:
        super().__init__(total_blocks, block_size, host_blocks)
        self._space = space
        self._foresight = foresight
        self._overrun = overrun
        self._held: dict[int, Range] = {}
        self._holders: dict[int, Request] = {}
        self._expected: dict[int, int] = {}
        self._expected_slots = 0
        self._moves: list[Move] = []
        self._failed = 0
        self._refused = 0

    @property
    def free_blocks(self) -> int:
        return self._space.free

    def blocks_to_admit(self, request: Request, tokens: int) -> int:
        return self._space.rounded(self._count_for(request, tokens, request.num_generated_tokens))

    def blocks_to_finish(self, request: Request, tokens: int) -> int:
        generated = tokens - request.prompt_tokens  # the last token is not computed
        return self._space.rounded(self._count_for(request, tokens, generated))

    def use(self, stored_tokens: int) -> MemoryUse:
        """The split of held slots is off by what requests have outgrown a prediction since."""
        space, block_size = self._space, self.block_size
        empty = (self.total_blocks - space.free) * block_size - stored_tokens
        reserved = min(max(self._expected_slots - stored_tokens, 0), empty)
        in_pieces = space.largest < self._refused <= space.free
        external = space.free * block_size if in_pieces else 0
        return MemoryUse(stored_tokens, reserved, empty - reserved, external, self._failed)

    def reserve(self, request: Request, tokens: int) -> bool:
        held = self._held.get(request.id)
        if held is not None:
            return tokens <= held.size * self.block_size or self._enlarge(request, tokens)
        count = self._count_for(request, tokens, request.num_generated_tokens)
        found = self._find(count)
        if found is None:
            return False
        self._settle(request, found, tokens)
        return True

    def release(self, request: Request) -> int:
        if request.id in self._members:
            self.leave(request)
        self._space.give_back(self._held.pop(request.id))
        del self._holders[request.id]
        self._expected_slots -= self._expected.pop(request.id)
        return 0

    def swap_in(self, request: Request, tokens: int) -> BlockPairs | None:
        if not self.reserve(request, tokens):
            return None
        return self._fetch(request, self.block_table(request))

    def take_moves(self) -> list[Move]:
        moves, self._moves = self._moves, []
        return moves

    def block_table(self, request: Request) -> Sequence[int]:
        held = self._held.get(request.id)
        return () if held is None else range(held.start, held.stop)

    def grow(self, request: Request) -> bool:
        iteration = self._iteration
        if iteration not in self._due or self._due_iteration(request) != iteration:
            return True
        if not self._enlarge(request, self._room(request) + 1):
            return False
        self._unschedule(request, iteration)
        self._schedule_growth(request, self._due_iteration(request))
        return True

    def can_grow_all(self) -> bool:
        return not self.needy

    def grow_all(self) -> None:
        """Nobody is needy: who has outgrown its range is looked at one by one."""
        assert not self.needy, "a range is outgrown"

    def check(self) -> None:
        super().check()
        assert not self._host_tables.keys() & self._held.keys(), "a request is in both tiers"
        self._space.check(list(self._held.values()))
        assert self._holders.keys() == self._held.keys(), "a range without its request"
        assert self._expected.keys() == self._held.keys(), "a range that is for nothing"
        assert self._expected_slots == sum(self._expected.values()), "expectations do not add up"

    # ---- inside

    def _room(self, request: Request) -> int:
        return self._held[request.id].size * self.block_size

    def _count_for(self, request: Request, tokens: int, generated: int) -> int:
        """Blocks that a request which asks for room for `tokens` tokens gets."""
        least = self.blocks_for(tokens)
        foreseen = self.blocks_for(self._foresight.reserved_tokens(request, generated))
        return max(least, min(foreseen, self._space.most))

    def _find(self, *counts: int) -> Range | None:
        """A free range of the first of `counts`, most first, that there is one of."""
        for count in counts:
            found = self._space.take(count)
            if found is not None:
                if found.size >= self._refused:
                    self._refused = 0
                return found
        least = self._space.rounded(counts[-1])
        if least > self._space.free:
            return None
        self._failed += 1
        if self._gather():
            found = next(filter(None, map(self._space.take, counts)))
            self._refused = 0
            return found
        self._refused = least
        return None

    def _gather(self) -> bool:
        """Make one hole of all; False if that is not done here."""
        return False

    def _enlarge(self, request: Request, tokens: int) -> bool:
        """Give who holds too little room for `tokens` tokens in all."""
        wished = self._count_for(request, tokens, request.num_generated_tokens)
        least = self.blocks_for(tokens)
        held = self._held[request.id]
        for count in (wished, least):
            extended = self._space.extend(held, count)
            if extended is not None:
                self._settle(request, extended, tokens)
                return True
        if self._overrun == "preempt":
            if self._space.rounded(least) - held.size <= self._space.free:
                self._failed += 1
            return False
        found = self._find(wished, least)
        if found is None:
            return False
        held = self._held[request.id]  # it may have been moved to make room
        self._note_move(request, held, found)
        self._space.give_back(held)
        self._settle(request, found, tokens)
        return True

    def _settle(self, request: Request, held: Range, tokens: int) -> None:
        """`request` holds this range now."""
        expected = self._foresight.expected_tokens(request, request.num_generated_tokens)
        expected = min(max(expected, tokens), held.size * self.block_size)
        self._expected_slots += expected - self._expected.get(request.id, 0)
        self._expected[request.id] = expected
        self._held[request.id] = held
        self._holders[request.id] = request

    def _note_move(self, request: Request, origin: Range, target: Range) -> None:
        """What is computed of `request` has to be copied."""
        count = self.blocks_for(request.num_computed_tokens)
        pairs = list(
            zip(
                range(origin.start, origin.start + count),
                range(target.start, target.start + count),
                strict=True,
            )
        )
        if pairs:
            self._moves.append(Move(request, pairs))
