"""`Occupancy`: how many blocks running requests will hold, iteration by iteration, if all goes on.

It knows nothing of policies: numbers go in, numbers come out.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


class Stay(NamedTuple):
    """A request's time in memory: `known` slots in iteration `start`, one more in each that
    follows, and nothing after iteration `end`."""

    start: int
    known: int
    end: int


class Occupancy:
    """Blocks of `block_size` slots that a set of stays holds.

    Each stay only grows until its end, so the total peaks in iterations in which one ends; only
    these are looked at. Adding a stay and asking whether one fits are O(n) vector operations, a
    stay that leaves before its end costs O(n²) at the next question.
    """

    __slots__ = ("_block_size", "_ends", "_held", "_is_stale", "_knowns", "_starts", "_stays")

    def __init__(self, block_size: int) -> None:
        self._block_size = block_size
        self._stays: dict[int, Stay] = {}
        # Of those whose end is to come, in order of it; `_held` is what all hold at that end.
        self._ends: Ints = np.zeros(0, dtype=np.int64)
        self._starts: Ints = np.zeros(0, dtype=np.int64)
        self._knowns: Ints = np.zeros(0, dtype=np.int64)
        self._held: Ints = np.zeros(0, dtype=np.int64)
        self._is_stale = False

    def __contains__(self, number: int) -> bool:
        return number in self._stays

    def add(self, number: int, stay: Stay) -> None:
        """Add the stay of request `number`, or replace it."""
        if number in self._stays:
            self._is_stale = True
        self._stays[number] = stay
        if self._is_stale:
            return
        place = int(np.searchsorted(self._ends, stay.end))
        own, before = self._with(stay, place)
        self._held[:place] += before
        self._ends = np.insert(self._ends, place, stay.end)
        self._starts = np.insert(self._starts, place, stay.start)
        self._knowns = np.insert(self._knowns, place, stay.known)
        self._held = np.insert(self._held, place, own)

    def remove(self, number: int, now: int) -> None:
        """Forget the stay of request `number`; what counts are iterations from `now` on."""
        if self._stays.pop(number).end >= now:
            self._is_stale = True

    def overdue(self, now: int) -> list[int]:
        """Requests that are still there although their stay ended before `now`, ascending.

        To be asked in every iteration, before `fits`, and to be given another stay.
        """
        if self._is_stale:
            self._rebuild()
        if len(self._ends) and self._ends[0] < now:
            gone = int(np.searchsorted(self._ends, now))
            self._ends, self._held = self._ends[gone:], self._held[gone:]
            self._starts, self._knowns = self._starts[gone:], self._knowns[gone:]
        if len(self._stays) == len(self._ends):
            return []
        return sorted(number for number, stay in self._stays.items() if stay.end < now)

    def fits(self, stay: Stay, blocks: int) -> bool:
        """Whether at most `blocks` are held in every iteration from now on, with `stay` added."""
        if self._is_stale:
            self._rebuild()
        place = int(np.searchsorted(self._ends, stay.end))
        own, before = self._with(stay, place)
        return own <= blocks and not bool(np.any(self._held[:place] + before > blocks))

    def _with(self, stay: Stay, place: int) -> tuple[int, Ints]:
        """All blocks held when `stay`, which ends at `place`, ends; its own at the ends before."""
        later = self._blocks(self._knowns[place:] + (stay.end - self._starts[place:]))
        own = -(-(stay.known + stay.end - stay.start) // self._block_size)
        before = self._blocks(stay.known + self._ends[:place] - stay.start)
        return int(later.sum()) + own, before

    def _blocks(self, slots: Ints) -> Ints:
        return -(-slots // self._block_size)

    def _rebuild(self) -> None:
        stays = sorted(self._stays.values(), key=lambda stay: stay.end)
        self._ends = np.array([stay.end for stay in stays], dtype=np.int64)
        self._starts = np.array([stay.start for stay in stays], dtype=np.int64)
        self._knowns = np.array([stay.known for stay in stays], dtype=np.int64)
        slots = self._knowns + self._ends[:, None] - self._starts
        held = np.where(self._ends >= self._ends[:, None], self._blocks(slots), 0)
        self._held = held.sum(axis=1)
        self._is_stale = False
