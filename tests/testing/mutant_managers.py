"""Memory managers with one bug each. Their own `check` says nothing: the kit has to find it."""

from collections.abc import Iterable, Sequence

from schedsim.memory import PagedKVCache, PrefixCachedKVCache
from schedsim.memory.base import BlockPairs, MemoryUse, Move
from schedsim.request import Request


class Unchecked:
    def check(self) -> None:
        """Nothing."""


class LeaksABlock(Unchecked, PagedKVCache):
    def _give_back(self, table: list[int]) -> int:
        return super()._give_back(table[1:])


class FreesTwice(Unchecked, PagedKVCache):
    def release(self, request: Request) -> int:
        return super().release(request) if request.id in self._tables else 0


class GivesBlocksBackTwice(Unchecked, PagedKVCache):
    def _give_back(self, table: list[int]) -> int:
        return super()._give_back([*table, table[-1]])


class SkipsARefcount(Unchecked, PrefixCachedKVCache):
    def _hold(self, blocks: list[int]) -> None:
        held = [block for block in blocks if self._users[block]]
        super()._hold(blocks)
        for block in held:
            self._users[block] -= 1


class HandsOutTheNullBlock(Unchecked, PagedKVCache):
    def __init__(self, total_blocks: int, block_size: int, host_blocks: int = 0) -> None:
        super().__init__(total_blocks, block_size, host_blocks)
        self._free = list(range(total_blocks - 1, -1, -1))


class CountsTheNullBlock(Unchecked, PagedKVCache):
    @property
    def free_blocks(self) -> int:
        return len(self._free) + 1


class KeepsWhatItRefused(Unchecked, PagedKVCache):
    def reserve(self, request: Request, tokens: int) -> bool:
        if super().reserve(request, tokens):
            return True
        if request.id in self._tables:
            self._tables[request.id] += self._take(self.free_blocks)
        return False


class KeysTooEarly(Unchecked, PrefixCachedKVCache):
    def plan(self, request: Request, tokens: int) -> None:
        super().plan(request, tokens)
        index, table = tokens // self.block_size, self._tables[request.id]
        if tokens % self.block_size and self._key_of[table[index]] is None:
            key = self._content.block_key(request.id, index, self.block_size)
            self._add_key(table[index], key)


class ForgetsWhoRelies(Unchecked, PrefixCachedKVCache):
    def relying_on(self, request: Request, others: Iterable[Request]) -> list[Request]:
        return []


class SharesWithoutAPrefix(Unchecked, PrefixCachedKVCache):
    def reserve(self, request: Request, tokens: int) -> bool:
        is_new = request.id not in self._tables
        if not super().reserve(request, tokens):
            return False
        others = [i for i in self._tables if i != request.id]
        if is_new and others:
            table, block = self._tables[request.id], self._tables[others[0]][-1]
            self._users[block] += 1
            table[-1] = block
        return True


class MiscountsTheSharers(Unchecked, PrefixCachedKVCache):
    def release(self, request: Request) -> int:
        super().release(request)
        return 0


class GrowsTooLate(Unchecked, PagedKVCache):
    @property
    def needy(self) -> Sequence[Request]:
        return super().needy[1:]


class CopiesBackwards(Unchecked, PagedKVCache):
    def swap_in(self, request: Request, tokens: int) -> BlockPairs | None:
        pairs = super().swap_in(request, tokens)
        if pairs is None:
            return None
        sources, targets = [s for s, _ in pairs], [t for _, t in pairs]
        return list(zip(reversed(sources), targets, strict=True))


class LosesHostBlocks(Unchecked, PagedKVCache):
    def forget_swapped(self, request: Request) -> None:
        del self._host_tables[request.id]


class WastesNothing(Unchecked, PagedKVCache):
    def use(self, stored_tokens: int) -> MemoryUse:
        return super().use(stored_tokens)._replace(internal_waste=0)


class Moves(PagedKVCache):
    """No bug: with every new request it moves the last block of another one, and says so."""

    moves_blocks = True

    def __init__(self, total_blocks: int, block_size: int, host_blocks: int = 0) -> None:
        super().__init__(total_blocks, block_size, host_blocks)
        self._moves: list[Move] = []
        self._holders: dict[int, Request] = {}

    def reserve(self, request: Request, tokens: int) -> bool:
        if not super().reserve(request, tokens):
            return False
        self._holders[request.id] = request
        others = [i for i in self._tables if i != request.id]
        if others and self._free:
            table = self._tables[others[0]]
            (new,) = self._take(1)
            self._moves.append(Move(self._holders[others[0]], [(table[-1], new)]))
            self._give_back(table[-1:])
            table[-1] = new
        return True

    def take_moves(self) -> list[Move]:
        moves, self._moves = self._moves, []
        return moves


class MovesTheWrongBlock(Moves):
    def take_moves(self) -> list[Move]:
        return [
            Move(request, [(old, new % self.total_blocks + 1) for old, new in pairs])
            for request, pairs in super().take_moves()
        ]


class MovesInSilence(Moves):
    def take_moves(self) -> list[Move]:
        super().take_moves()
        return []


class Ranges:
    """A contiguous allocator of the plainest kind: the first hole that is long enough."""

    def __init__(self, blocks: int, block_size: int) -> None:
        self.blocks, self.block_size = blocks, block_size
        self.ranges: dict[int, range] = {}

    @property
    def num_free(self) -> int:
        return self.blocks - sum(map(len, self.ranges.values()))

    def allocate(self, request: int, num_tokens: int) -> Sequence[int] | None:
        length, start = -(-num_tokens // self.block_size), 1
        for taken in sorted(self.ranges.values(), key=lambda taken: taken.start):
            if self.fits(start + length, taken.start):
                break
            start = taken.stop
        if start + length > self.blocks + 1:
            return None
        self.ranges[request] = range(start, start + length)
        return self.ranges[request]

    def fits(self, stop: int, next_start: int) -> bool:
        return stop <= next_start

    def append(self, request: int, num_tokens: int) -> Sequence[int] | None:
        held = self.ranges[request]
        stop = held.start + -(-num_tokens // self.block_size)
        starts = [other.start for other in self.ranges.values() if other.start > held.start]
        if stop > min(starts, default=self.blocks + 1):
            return None
        self.ranges[request] = range(held.start, stop)
        return self.ranges[request]

    def free(self, request: int) -> None:
        del self.ranges[request]


class OverlappingRanges(Ranges):
    def fits(self, stop: int, next_start: int) -> bool:
        return stop <= next_start + 1


class ScatteredRanges(Ranges):
    def append(self, request: int, num_tokens: int) -> Sequence[int] | None:
        given = super().append(request, num_tokens)
        return None if given is None else [*given][::-1]


class ReleasesAnything(Ranges):
    def free(self, request: int) -> None:
        self.ranges.pop(request, None)


class RefusesOddly(Ranges):
    """Releasing what is not held has to be a LookupError."""

    def free(self, request: int) -> None:
        if request not in self.ranges:
            raise ValueError("who is that?")
        super().free(request)


class CannotCount(Ranges):
    @property
    def num_free(self) -> int:
        raise RuntimeError("I never counted")
