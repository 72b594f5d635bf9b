"""`Holes` and `BuddyChunks`: free space in which room is found in one piece. They know no request.

Places are blocks, numbered from 1 to `total`.
"""

from bisect import bisect_left, insort
from itertools import pairwise
from typing import NamedTuple, Protocol


class Range(NamedTuple):
    """The blocks [start, start + size)."""

    start: int
    size: int

    @property
    def stop(self) -> int:
        """The first block after it."""
        return self.start + self.size


class Space(Protocol):
    """Free space that is handed out in ranges of consecutive blocks."""

    free: int
    """Free blocks in all."""

    most: int
    """The longest range that can be taken when nothing is held."""

    @property
    def largest(self) -> int:
        """The longest range that can be taken."""

    def rounded(self, count: int) -> int:
        """How long a range is taken for `count` blocks."""

    def take(self, count: int) -> Range | None:
        """A range of `rounded(count)` blocks; None if no hole is long enough."""

    def extend(self, held: Range, count: int) -> Range | None:
        """The range that begins where `held` does, for `count` blocks; None if others are there."""

    def give_back(self, held: Range) -> None:
        """Take a whole range back."""

    def check(self, held: list[Range]) -> None:
        """Assert that `held` and the holes are all blocks, each once, and nothing else."""


class Holes:
    """Holes in the order of their addresses; first fit; neighbours become one at once.

    Knuth, "The Art of Computer Programming", volume 1, section 2.5. There is at most one hole more
    than ranges that are held, so a search is O(held ranges), the rest O(log) comparisons and a
    move in a list.
    """

    def __init__(self, total: int) -> None:
        self.free = self.most = self.total = total
        self._starts = [1]
        self._counts = [total]

    @property
    def largest(self) -> int:
        return max(self._counts, default=0)

    def rounded(self, count: int) -> int:
        return count

    def take(self, count: int) -> Range | None:
        if count > self.free:
            return None
        for place, size in enumerate(self._counts):
            if size >= count:
                start = self._starts[place]
                self._cut(place, count)
                return Range(start, count)
        return None

    def extend(self, held: Range, count: int) -> Range | None:
        more = count - held.size
        place = bisect_left(self._starts, held.stop)
        if place == len(self._starts) or self._starts[place] != held.stop:
            return None
        if self._counts[place] < more:
            return None
        self._cut(place, more)
        return Range(held.start, count)

    def give_back(self, held: Range) -> None:
        self.free += held.size
        starts, counts = self._starts, self._counts
        place = bisect_left(starts, held.start)
        joins_next = place < len(starts) and starts[place] == held.stop
        joins_last = place > 0 and starts[place - 1] + counts[place - 1] == held.start
        if joins_last:
            counts[place - 1] += held.size
            if joins_next:
                counts[place - 1] += counts[place]
                del starts[place], counts[place]
        elif joins_next:
            starts[place] = held.start
            counts[place] += held.size
        else:
            starts.insert(place, held.start)
            counts.insert(place, held.size)

    def gather(self) -> None:
        """All that is held was slid down: one hole is left, at the end."""
        self._starts, self._counts = [self.total - self.free + 1], [self.free]

    def check(self, held: list[Range]) -> None:
        holes = [Range(*hole) for hole in zip(self._starts, self._counts, strict=True)]
        assert all(hole.size > 0 for hole in holes), "an empty hole is kept"
        assert self.free == sum(hole.size for hole in holes), "free blocks are miscounted"
        for hole, following in pairwise(holes):
            assert hole.stop < following.start, "holes touch, overlap or are out of order"
        _check_cover(holes + held, self.total)

    def _cut(self, place: int, count: int) -> None:
        """Take the first blocks of a hole."""
        self.free -= count
        if count == self._counts[place]:
            del self._starts[place], self._counts[place]
        else:
            self._starts[place] += count
            self._counts[place] -= count


class BuddyChunks:
    """Chunks of 2^k blocks: split in halves to fit, and joined again with their other half.

    Knowlton, CACM 1965; Knuth, volume 1, section 2.5, algorithms R and S. Of equal chunks the
    lowest goes first. A total that is no power of two is made of the chunks of its binary form,
    the largest first, which are never joined. O(log total) list operations a call.
    """

    def __init__(self, total: int) -> None:
        self.free = self.total = total
        self.most = 1 << (total.bit_length() - 1)
        # Free chunks by their order, places counted from 0 so that buddies differ in one bit.
        self._chunks: list[list[int]] = [[] for _ in range(total.bit_length())]
        place = 0
        for order in reversed(range(total.bit_length())):
            if total >> order & 1:
                self._chunks[order].append(place)
                place += 1 << order

    @property
    def largest(self) -> int:
        orders = reversed(range(len(self._chunks)))
        return next((1 << order for order in orders if self._chunks[order]), 0)

    def rounded(self, count: int) -> int:
        return 1 << (count - 1).bit_length()

    def take(self, count: int) -> Range | None:
        order = (count - 1).bit_length()
        found = next((k for k in range(order, len(self._chunks)) if self._chunks[k]), None)
        if found is None:
            return None
        place = self._chunks[found].pop(0)
        for k in reversed(range(order, found)):
            insort(self._chunks[k], place + (1 << k))
        self.free -= 1 << order
        return Range(place + 1, 1 << order)

    def extend(self, held: Range, count: int) -> Range | None:
        place, target = held.start - 1, self.rounded(count)
        needed = range(held.size.bit_length() - 1, target.bit_length() - 1)
        if place % target or not all(self._find(k, place + (1 << k)) is not None for k in needed):
            return None
        for k in needed:
            self._chunks[k].remove(place + (1 << k))
        self.free -= target - held.size
        return Range(held.start, target)

    def give_back(self, held: Range) -> None:
        self.free += held.size
        place, order = held.start - 1, held.size.bit_length() - 1
        while (found := self._find(order, place ^ (1 << order))) is not None:
            del self._chunks[order][found]
            place &= ~(1 << order)
            order += 1
        insort(self._chunks[order], place)

    def check(self, held: list[Range]) -> None:
        free = []
        for order, places in enumerate(self._chunks):
            assert places == sorted(set(places)), "chunks are out of order"
            for place in places:
                assert place % (1 << order) == 0, "a chunk does not lie on a multiple of its size"
                assert self._find(order, place ^ (1 << order)) is None, "buddies are not joined"
                free.append(Range(place + 1, 1 << order))
        assert self.free == sum(chunk.size for chunk in free), "free blocks are miscounted"
        for start, count in held:
            assert count & (count - 1) == 0, "a held range is no chunk"
            assert (start - 1) % count == 0, "a held chunk does not lie on a multiple of its size"
        _check_cover(free + held, self.total)

    def _find(self, order: int, place: int) -> int | None:
        """Where the free chunk of that order and place stands in its list; None if it is not."""
        if order >= len(self._chunks):
            return None
        places = self._chunks[order]
        found = bisect_left(places, place)
        return found if found < len(places) and places[found] == place else None


def _check_cover(ranges: list[Range], total: int) -> None:
    stop = 1
    for part in sorted(ranges):
        assert part.start >= stop, "two ranges overlap"
        assert part.start == stop, "a block is neither free nor held"
        stop = part.stop
    assert stop == total + 1, "a block is neither free nor held"
