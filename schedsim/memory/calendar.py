"""`DecodeCalendar`: what most managers share: when a decode needs room, and the host tier."""

from abc import abstractmethod
from bisect import bisect_left, insort
from collections.abc import Sequence
from operator import attrgetter

from schedsim.memory.base import BlockPairs, KVCache
from schedsim.request import Request

_by_order = attrgetter("order")


class DecodeCalendar(KVCache):
    """Decode members wait in a calendar keyed by the decode iteration that needs more room.

    So an iteration costs what it allocates, not what runs. A subclass that gives a member room
    puts it elsewhere in the calendar. The host tier is a stack of blocks.
    """

    def __init__(self, total_blocks: int, block_size: int, host_blocks: int = 0) -> None:
        super().__init__(total_blocks, block_size)
        self.host_blocks = host_blocks
        self._host_free = list(range(host_blocks, 0, -1))
        self._host_tables: dict[int, list[int]] = {}
        self._members: dict[int, Request] = {}
        self._iteration = 0
        self._due: dict[int, list[Request]] = {}

    @abstractmethod
    def _room(self, request: Request) -> int:
        """Token slots that a request holds."""

    @property
    def num_swapped(self) -> int:
        return len(self._host_tables)

    def swap_out(self, request: Request) -> BlockPairs | None:
        count = self.blocks_for(request.num_computed_tokens)
        if not 0 < count <= len(self._host_free):
            return None
        self._host_tables[request.id] = held = [self._host_free.pop() for _ in range(count)]
        return list(zip(self.block_table(request), held, strict=False))

    def forget_swapped(self, request: Request) -> None:
        self._host_free += reversed(self._host_tables.pop(request.id))

    def join(self, request: Request) -> None:
        self._members[request.id] = request
        self._schedule_growth(request, self._due_iteration(request))

    def leave(self, request: Request) -> None:
        self._unschedule(request, self._due_iteration(request))
        del self._members[request.id]

    @property
    def needy(self) -> Sequence[Request]:
        return self._due.get(self._iteration, ())

    def advance(self) -> None:
        self._iteration += 1

    def check(self) -> None:
        held = [block for table in self._host_tables.values() for block in table]
        assert sorted(self._host_free + held) == list(range(1, self.host_blocks + 1)), (
            "a host block is lost or held twice"
        )
        waiting = [request for due in self._due.values() for request in due]
        assert sorted(r.id for r in waiting) == sorted(self._members), "a member awaits no block"
        for iteration, due in self._due.items():
            assert due == sorted(due, key=_by_order), "members await blocks out of running order"
            assert iteration >= self._iteration, "a member ran without a slot"
            for request in due:
                assert self._due_iteration(request) == iteration, "a member awaits the wrong turn"
        for request in self._members.values():
            assert self._room(request) >= request.num_computed_tokens, (
                "computed tokens without a slot"
            )

    def _due_iteration(self, request: Request) -> int:
        """The decode iteration that needs more room than `request` holds."""
        return self._iteration + self._room(request) - request.num_computed_tokens

    def _schedule_growth(self, request: Request, iteration: int) -> None:
        due = self._due.get(iteration)
        if due is None:
            self._due[iteration] = [request]
        else:
            insort(due, request, key=_by_order)

    def _unschedule(self, request: Request, iteration: int) -> None:
        due = self._due[iteration]
        del due[bisect_left(due, request.order, key=_by_order)]
        if not due:
            del self._due[iteration]

    def _fetch(self, request: Request, table: Sequence[int]) -> BlockPairs:
        """Empty the host blocks of a request into the blocks it now holds."""
        held = self._host_tables.pop(request.id)
        self._host_free += reversed(held)
        return list(zip(held, table, strict=False))
