"""`BlockTables`: what all managers of single blocks share: a list of blocks for each request."""

from abc import abstractmethod
from collections.abc import Sequence
from operator import attrgetter

from schedsim.memory.base import BlockPairs
from schedsim.memory.calendar import DecodeCalendar
from schedsim.request import Request

_by_order = attrgetter("order")


class BlockTables(DecodeCalendar):
    """A list of blocks for each request; where free blocks come from is left to the subclass."""

    def __init__(self, total_blocks: int, block_size: int, host_blocks: int = 0) -> None:
        super().__init__(total_blocks, block_size, host_blocks)
        self._tables: dict[int, list[int]] = {}

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
        if need <= 0:
            return True
        if need > self.free_blocks:
            return False
        if table is None:
            table = self._tables[request.id] = []
        table += self._take(need)
        return True

    def release(self, request: Request) -> int:
        if request.id in self._members:
            self.leave(request)
        return self._give_back(self._tables.pop(request.id))

    def swap_in(self, request: Request, tokens: int) -> BlockPairs | None:
        need = self.blocks_for(tokens)
        if need > self.free_blocks:
            return None
        self._tables[request.id] = table = self._take(need)
        return self._fetch(request, table)

    def block_table(self, request: Request) -> Sequence[int]:
        return self._tables.get(request.id, ())

    def grow(self, request: Request) -> bool:
        iteration = self._iteration
        if iteration not in self._due or self._due_iteration(request) != iteration:
            return True
        if not self.free_blocks:
            return False
        self._unschedule(request, iteration)
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

    @property
    def quiet_iterations(self) -> int:
        if self.has_prefix_cache:  # it is to be told what every iteration computes
            return 0
        return min(self._due) - self._iteration if self._due else 0

    def skip(self, iterations: int) -> None:
        self._iteration += iterations

    def check(self) -> None:
        super().check()
        assert not self._host_tables.keys() & self._tables.keys(), "a request is in both tiers"

    def _room(self, request: Request) -> int:
        return len(self._tables[request.id]) * self.block_size
