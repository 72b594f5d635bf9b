"""`WaitingQueue`: the waiting line as one heap a group."""

from collections.abc import Callable, Hashable
from heapq import heappop, heappush
from typing import Any

from schedsim.request import Request


class WaitingQueue:
    """Requests ordered by (key, id) inside their group; groups ordered at each look.

    Adding and taking are O(log n). With several groups a look at the head is O(groups), because
    the order among groups may change at any time.
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

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, request: Request) -> bool:
        return request.id in self._entries

    def add(self, request: Request) -> None:
        """Put `request` in line."""
        key = request.arrival if self._key is None else self._key(request)
        entry = (key, request.id, request)
        self._entries[request.id] = entry
        group = None if self._group is None else self._group(request)
        heap = self._heaps.get(group)
        if heap is None:
            heap = self._heaps[group] = []
        heappush(heap, entry)

    def remove(self, request: Request) -> None:
        """Take `request` out of line, wherever it stands."""
        del self._entries[request.id]

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

    def _top(self, group: Hashable) -> tuple[Any, int, Request] | None:
        heap = self._heaps.get(group)
        entries = self._entries
        while heap:
            entry = heap[0]
            if entries.get(entry[1]) is entry:
                return entry
            heappop(heap)
        self._heaps.pop(group, None)
        return None


def _rank(entry: tuple[Any, int, Request]) -> tuple[Any, int]:
    return entry[:2]
