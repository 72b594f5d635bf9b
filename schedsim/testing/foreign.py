"""`adapt`: an allocator that knows nothing of schedsim, as a memory manager for the kit."""

from collections.abc import Sequence
from typing import Protocol

from schedsim.memory.base import KVCache
from schedsim.request import Request


class ForeignAllocator(Protocol):
    """What an allocator of KV blocks has to offer so that `adapt` can drive it.

    A request is a number; its block table is the ids of its blocks in token order, without block
    0. Ids run from 1 to the total.
    """

    @property
    def num_free(self) -> int:
        """Blocks that nobody holds."""

    def allocate(self, request: int, num_tokens: int) -> Sequence[int] | None:
        """Blocks for the first `num_tokens` tokens of a new request; None, no change: no room."""

    def append(self, request: int, num_tokens: int) -> Sequence[int] | None:
        """The whole block table once there is room for `num_tokens` in all; None as above."""

    def free(self, request: int) -> None:
        """Take everything back.

        Raises:
            LookupError: the request holds nothing.
        """


def adapt(allocator: ForeignAllocator, total_blocks: int, block_size: int) -> KVCache:
    """A memory manager that leaves all blocks to `allocator`, which has `total_blocks` free."""
    kind = type(type(allocator).__name__, (_Adapted,), {})  # messages name the allocator
    adapted: KVCache = kind(allocator, total_blocks, block_size)
    return adapted


class _Adapted(KVCache):
    """Block tables as the allocator gave them, and who decodes; the rest is the allocator's."""

    def __init__(self, allocator: ForeignAllocator, total_blocks: int, block_size: int) -> None:
        super().__init__(total_blocks, block_size)
        self._allocator = allocator
        self._tables: dict[int, list[int]] = {}
        self._members: dict[int, Request] = {}

    @property
    def free_blocks(self) -> int:
        return self._allocator.num_free

    def reserve(self, request: Request, tokens: int) -> bool:
        held = self._tables.get(request.id)
        if held is None:
            given = self._allocator.allocate(request.id, tokens)
        elif len(held) * self.block_size >= tokens:
            return True
        else:
            given = self._allocator.append(request.id, tokens)
        if given is None:
            return False
        self._tables[request.id] = list(given)
        return True

    def release(self, request: Request) -> int:
        self._members.pop(request.id, None)
        try:
            self._allocator.free(request.id)
        except LookupError as error:
            raise KeyError(request.id) from error
        self._tables.pop(request.id, None)  # a release of nothing that passes is for the kit to see
        return 0

    def block_table(self, request: Request) -> Sequence[int]:
        return self._tables.get(request.id, ())

    def join(self, request: Request) -> None:
        self._members[request.id] = request

    def leave(self, request: Request) -> None:
        del self._members[request.id]

    @property
    def needy(self) -> Sequence[Request]:
        return sorted(filter(self._lacks_a_slot, self._members.values()), key=_order)

    def grow(self, request: Request) -> bool:
        return not self._lacks_a_slot(request) or self.reserve(
            request, request.num_computed_tokens + 1
        )

    def can_grow_all(self) -> bool:
        """An allocator is not asked whether several requests would fit, so they go one by one."""
        return not self.needy

    def grow_all(self) -> None:
        for request in self.needy:
            assert self.grow(request), f"no block for request {request.id}, which was not asked"

    def advance(self) -> None:
        """Nothing to do: tables are looked at when asked."""

    def check(self) -> None:
        """The allocator keeps the books; `AllocatorMachine` compares them with the tables."""

    def _lacks_a_slot(self, request: Request) -> bool:
        return len(self._tables[request.id]) * self.block_size == request.num_computed_tokens


def _order(request: Request) -> int:
    return request.order
