"""`BlockTables`: what all managers of single blocks share: block tables and the decode calendar."""

from abc import abstractmethod
from bisect import bisect_left, insort
from collections.abc import Sequence
from operator import attrgetter

from schedsim.memory.base import BlockPairs, KVCache
from schedsim.request import Request

_by_order = attrgetter("order")


class BlockTables(KVCache):
    """A list of blocks for each request; where free blocks come from is left to the subclass.

    Decode members wait in a calendar keyed by the decode iteration that needs their next block, so
    an iteration costs what it allocates, not what runs.
    """

    def __init__(self, total_blocks: int, block_size: int, host_blocks: int = 0) -> None:
        super().__init__(total_blocks, block_size)
        self.host_blocks = host_blocks
        self._host_free = list(range(host_blocks, 0, -1))
        self._host_tables: dict[int, list[int]] = {}
        self._tables: dict[int, list[int]] = {}
        self._members: dict[int, Request] = {}
        self._iteration = 0
        self._due: dict[int, list[Request]] = {}

    @abstractmethod
    def _take(self, count: int) -> list[int]:
        """The next `count` free blocks; there are as many."""

    @abstractmethod
    def _give_back(self, table: list[int]) -> int:
        """Let go of the blocks of a table; returns how many of them others still hold."""

    def reserve(self, request: Request, tokens: int) -> bool:
        table = self._tables.get(request.id)
        held = len(table) if table is not None else 0
        need = -(-tokens // self.block_size) - held
        if need > self.free_blocks:
            return False
        if table is None:
            table = self._tables[request.id] = []
        if need > 0:
            table += self._take(need)
        return True

    def release(self, request: Request) -> int:
        if request.id in self._members:
            self.leave(request)
        return self._give_back(self._tables.pop(request.id))

    @property
    def num_swapped(self) -> int:
        return len(self._host_tables)

    def swap_out(self, request: Request) -> BlockPairs | None:
        count = self.blocks_for(request.num_computed_tokens)
        if not 0 < count <= len(self._host_free):
            return None
        self._host_tables[request.id] = held = [self._host_free.pop() for _ in range(count)]
        return list(zip(self._tables[request.id], held, strict=False))

    def swap_in(self, request: Request, tokens: int) -> BlockPairs | None:
        need = self.blocks_for(tokens)
        if need > self.free_blocks:
            return None
        self._tables[request.id] = table = self._take(need)
        held = self._host_tables.pop(request.id)
        self._host_free += reversed(held)
        return list(zip(held, table, strict=False))

    def forget_swapped(self, request: Request) -> None:
        self._host_free += reversed(self._host_tables.pop(request.id))

    def block_table(self, request: Request) -> Sequence[int]:
        return self._tables.get(request.id, ())

    def join(self, request: Request) -> None:
        self._members[request.id] = request
        self._schedule_growth(request, self._due_iteration(request))

    def leave(self, request: Request) -> None:
        iteration = self._due_iteration(request)
        due = self._due[iteration]
        del due[bisect_left(due, request.order, key=_by_order)]
        if not due:
            del self._due[iteration]
        del self._members[request.id]

    @property
    def needy(self) -> Sequence[Request]:
        return self._due.get(self._iteration, ())

    def grow(self, request: Request) -> bool:
        iteration = self._iteration
        due = self._due.get(iteration)
        if due is None or self._due_iteration(request) != iteration:
            return True
        if not self.free_blocks:
            return False
        del due[bisect_left(due, request.order, key=_by_order)]
        if not due:
            del self._due[iteration]
        self._tables[request.id] += self._take(1)
        self._schedule_growth(request, iteration + self.block_size)
        return True

    def grow_all(self) -> None:
        due = self._due.pop(self._iteration, None)
        if due is None:
            return
        tables = self._tables
        for request, block in zip(due, self._take(len(due)), strict=True):
            tables[request.id].append(block)
        later = self._iteration + self.block_size
        waiting = self._due.get(later)
        if waiting is None:
            self._due[later] = due
        else:
            waiting += due
            waiting.sort(key=_by_order)

    def advance(self) -> None:
        self._iteration += 1

    def check(self) -> None:
        held = [block for table in self._host_tables.values() for block in table]
        assert sorted(self._host_free + held) == list(range(1, self.host_blocks + 1)), (
            "a host block is lost or held twice"
        )
        assert not self._host_tables.keys() & self._tables.keys(), "a request is in both tiers"
        waiting = [request for due in self._due.values() for request in due]
        assert sorted(r.id for r in waiting) == sorted(self._members), "a member awaits no block"
        for iteration, due in self._due.items():
            assert due == sorted(due, key=_by_order), "members await blocks out of running order"
            assert iteration >= self._iteration, "a member ran without a slot"
            for request in due:
                assert self._due_iteration(request) == iteration, "a member awaits the wrong turn"
        for request in self._members.values():
            room = len(self._tables[request.id]) * self.block_size
            assert room >= request.num_computed_tokens, "computed tokens without a slot"

    def _due_iteration(self, request: Request) -> int:
        """The decode iteration that needs a block more than `request` holds."""
        room = len(self._tables[request.id]) * self.block_size
        return self._iteration + room - request.num_computed_tokens

    def _schedule_growth(self, request: Request, iteration: int) -> None:
        due = self._due.get(iteration)
        if due is None:
            self._due[iteration] = [request]
        else:
            insort(due, request, key=_by_order)
