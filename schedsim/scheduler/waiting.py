"""`WaitingQueue`: the waiting line as one heap a group."""

from collections.abc import Callable, Hashable
from heapq import heapify, heappop, heappush
from typing import Any

from schedsim.request import Request

MAX_STALE = 64
"""Entries taken out of line that may stay in the heaps beside one for each that is in line."""


class WaitingQueue:
    """Requests ordered by (key, id) inside their group; groups ordered at each look.

    Adding and taking are O(log n). With several groups a look at the head is O(groups), because
    the order among groups may change at any time. Who is set aside keeps its place in line, but
    is passed over by `first` until `restore`. An entry that was taken out stays in its heap until
    it comes to the top or such entries outnumber the others.
    """

    def __init__(
        self,
        key: Callable[[Request], Any] | None = None,
        group: Callable[[Request], Hashable] | None = None,
        group_key: Callable[[Any], Any] | None = None,
    ) -> None:
        """`key`, `group` and `group_key` as in `Policy`; None is by arrival, one group."""
        self._key = key
        self._group = group
        self._group_key = group_key
        self._heaps: dict[Hashable, list[tuple[Any, int, Request]]] = {}
        self._entries: dict[int, tuple[Any, int, Request]] = {}
        self._aside: dict[int, Request] = {}
        self._num_stale = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, request: Request) -> bool:
        return request.id in self._entries

    def add(self, request: Request) -> None:
        """Put `request` in line."""
        key = request.arrival if self._key is None else self._key(request)
        self._entries[request.id] = entry = (key, request.id, request)
        self._push(entry)

    def remove(self, request: Request) -> None:
        """Take `request` out of line, wherever it stands."""
        del self._entries[request.id]
        if self._aside.pop(request.id, None) is None:
            self._drop_stale()

    def rekey(self, request: Request) -> None:
        """Give `request`, which is in line, the place of its present key and group."""
        aside = request.id in self._aside
        self.remove(request)
        self.add(request)
        if aside:
            self.set_aside(request)

    def set_aside(self, request: Request) -> None:
        """Let `first` pass over `request`, which is in line, until `restore`."""
        self._aside[request.id] = request
        key, number, _ = self._entries[request.id]
        self._entries[request.id] = (key, number, request)  # makes the one in the heap stale
        self._drop_stale()

    def restore(self) -> None:
        """Let `first` see again who was set aside."""
        for number in self._aside:
            self._push(self._entries[number])
        self._aside.clear()

    def first(self) -> Request | None:
        """The request at the head, None if nobody waits."""
        if self._group is None:
            entry = self._top(None)
            return None if entry is None else entry[2]
        best: tuple[Any, Any] | None = None
        head = None
        for group in list(self._heaps):
            entry = self._top(group)
            if entry is None:
                continue
            rank = (None if self._group_key is None else self._group_key(group), entry[:2])
            if best is None or rank < best:
                best, head = rank, entry[2]
        return head

    def ordered(self) -> list[Request]:
        """All waiting requests, group after group as `first` would take them now; O(n log n)."""
        if self._group is None:
            return [entry[2] for entry in sorted(self._entries.values(), key=_rank)]
        group_of, group_key = self._group, self._group_key

        def rank(entry: tuple[Any, int, Request]) -> tuple[Any, ...]:
            return (None if group_key is None else group_key(group_of(entry[2])), entry[:2])

        return [entry[2] for entry in sorted(self._entries.values(), key=rank)]

    def check(self) -> None:
        """Assert the invariants; O(n)."""
        stored = [entry for heap in self._heaps.values() for entry in heap]
        live = [entry for entry in stored if self._entries.get(entry[1]) is entry]
        assert len(stored) - len(live) == self._num_stale, "stale entries are miscounted"
        assert set(self._aside) <= set(self._entries), "someone set aside is not in line"
        numbers = sorted([entry[1] for entry in live] + list(self._aside))
        assert numbers == sorted(self._entries), "someone in line cannot be reached, or twice"

    def _top(self, group: Hashable) -> tuple[Any, int, Request] | None:
        heap = self._heaps.get(group)
        entries = self._entries
        while heap:
            entry = heap[0]
            if entries.get(entry[1]) is entry:
                return entry
            heappop(heap)
            self._num_stale -= 1
        self._heaps.pop(group, None)
        return None

    def _push(self, entry: tuple[Any, int, Request]) -> None:
        group = None if self._group is None else self._group(entry[2])
        heap = self._heaps.get(group)
        if heap is None:
            heap = self._heaps[group] = []
        heappush(heap, entry)

    def _drop_stale(self) -> None:
        """Count one more stale entry; rebuild the heaps where they are the greater part."""
        self._num_stale += 1
        if self._num_stale <= len(self._entries) + MAX_STALE:
            return
        entries = self._entries
        for group in list(self._heaps):
            heap = [entry for entry in self._heaps[group] if entries.get(entry[1]) is entry]
            heapify(heap)
            self._heaps[group] = heap
        self._num_stale = 0


def _rank(entry: tuple[Any, int, Request]) -> tuple[Any, int]:
    return entry[:2]
