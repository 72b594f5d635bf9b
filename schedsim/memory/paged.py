"""`PagedKVCache`: any free block serves any request (vLLM, SOSP'23, section 4)."""

from bisect import bisect_left, insort
from collections.abc import Sequence
from operator import attrgetter

from schedsim.memory.base import KVCache
from schedsim.request import Request

_by_order = attrgetter("order")


class PagedKVCache(KVCache):
    """Blocks from one free list, in vLLM 0.33's order without prefix caching.

    The free list is a stack: a request's blocks come back tail first and are the first to go out
    again. Decode members wait in a calendar keyed by the decode iteration that needs their next
    block, so an iteration costs what it allocates, not what runs.
    """

    def __init__(self, total_blocks: int, block_size: int) -> None:
        super().__init__(total_blocks, block_size)
        self._free = list(range(total_blocks, 0, -1))
        self._tables: dict[int, list[int]] = {}
        self._members: dict[int, Request] = {}
        self._iteration = 0
        self._due: dict[int, list[Request]] = {}

    @property
    def free_blocks(self) -> int:
        return len(self._free)

    def reserve(self, request: Request, tokens: int) -> bool:
        table = self._tables.get(request.id)
        held = len(table) if table is not None else 0
        need = -(-tokens // self.block_size) - held
        if need > len(self._free):
            return False
        if table is None:
            table = self._tables[request.id] = []
        if need > 0:
            taken = self._free[-need:]
            taken.reverse()
            del self._free[-need:]
            table += taken
        return True

    def release(self, request: Request) -> None:
        if request.id in self._members:
            self.leave(request)
        self._free += self._tables.pop(request.id)

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
        if not self._free:
            return False
        del due[bisect_left(due, request.order, key=_by_order)]
        if not due:
            del self._due[iteration]
        self._tables[request.id].append(self._free.pop())
        self._schedule_growth(request, iteration + self.block_size)
        return True

    def grow_all(self) -> None:
        due = self._due.pop(self._iteration, None)
        if due is None:
            return
        tables, pop = self._tables, self._free.pop
        for request in due:
            tables[request.id].append(pop())
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
        count, seen = len(self._free), set(self._free)
        for table in self._tables.values():
            count += len(table)
            seen.update(table)
        assert count == len(seen) == self.total_blocks, "a block is lost or held twice"
        assert min(seen) == 1, "the null block is handed out"
        assert max(seen) == self.total_blocks, "a block that is not there is handed out"
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
