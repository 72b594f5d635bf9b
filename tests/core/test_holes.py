"""`Holes` and `BuddyChunks` against a row of cells that are free or not."""

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from schedsim.memory.holes import BuddyChunks, Holes, Range, Space


class SpaceMachine(RuleBasedStateMachine):
    """`cells[i]` says whether block i + 1 is held."""

    def make(self, total: int) -> Space:
        raise NotImplementedError

    @initialize(total=st.integers(1, 70))
    def start(self, total: int) -> None:
        self.space = self.make(total)
        self.cells = [False] * total
        self.held: list[Range] = []

    def fits(self, start: int, count: int) -> bool:
        """Whether the cells from `start` (counted from 0) on are there and free."""
        return start + count <= len(self.cells) and not any(self.cells[start : start + count])

    def fill(self, part: Range, value: bool) -> None:
        for cell in range(part.start - 1, part.stop - 1):
            assert self.cells[cell] != value
            self.cells[cell] = value

    def places(self, count: int) -> list[int]:
        """Where a range of `count` cells may begin, lowest first."""
        return [place for place in range(len(self.cells)) if self.fits(place, count)]

    @rule(count=st.integers(1, 80))
    def take(self, count: int) -> None:
        count_taken = self.space.rounded(count)
        places = self.places(count_taken)
        found = self.space.take(count)
        assert (found is None) == (not places)
        if found is not None:
            assert found.size == count_taken
            assert self.expected_place(places, count_taken) == found.start - 1
            self.fill(found, True)
            self.held.append(found)

    def expected_place(self, places: list[int], count: int) -> int:
        return places[0]

    @precondition(lambda self: self.held)
    @rule(data=st.data(), more=st.integers(1, 20))
    def extend(self, data: st.DataObject, more: int) -> None:
        held = data.draw(st.sampled_from(self.held))
        count = held.size + more
        taken = self.space.rounded(count)
        found = self.space.extend(held, count)
        can = self.fits(held.stop - 1, taken - held.size) and self.may_extend(held, taken)
        assert (found is not None) == can
        if found is not None:
            assert found == Range(held.start, taken)
            self.fill(Range(held.stop, taken - held.size), True)
            self.held[self.held.index(held)] = found

    def may_extend(self, held: Range, count: int) -> bool:
        return True

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        held = data.draw(st.sampled_from(self.held))
        self.held.remove(held)
        self.space.give_back(held)
        self.fill(held, False)

    @invariant()
    def free_and_largest(self) -> None:
        if not hasattr(self, "space"):
            return
        self.space.check(self.held)
        assert self.space.free == self.cells.count(False)
        largest = max(
            (count for count in range(1, len(self.cells) + 1) if self.places(count)), default=0
        )
        assert self.space.largest == largest
        if not self.held:
            assert self.space.largest == self.space.most


class HolesMachine(SpaceMachine):
    def make(self, total: int) -> Space:
        return Holes(total)


class BuddyMachine(SpaceMachine):
    """A chunk may lie at multiples of its size only, and is cut from the smallest that will do."""

    def make(self, total: int) -> Space:
        return BuddyChunks(total)

    def places(self, count: int) -> list[int]:
        return [p for p in super().places(count) if p % count == 0 and count & (count - 1) == 0]

    def expected_place(self, places: list[int], count: int) -> int:
        """The lowest place in the smallest free chunk that holds `count`."""

        def chunk(place: int) -> int:
            size = count
            while self.fits(base := place // (2 * size) * 2 * size, 2 * size):
                size *= 2
                assert base >= 0
            return size

        return min(places, key=lambda place: (chunk(place), place))

    def may_extend(self, held: Range, count: int) -> bool:
        return (held.start - 1) % count == 0


TestHoles = HolesMachine.TestCase
TestBuddyChunks = BuddyMachine.TestCase
