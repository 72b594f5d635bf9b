"""`PrefixCachedKVCache`: paged memory that finds computed blocks again, as vLLM 0.33 does.

Source: vLLM 0.33.0, `vllm/v1/core/block_pool.py` and `kv_cache_manager.py`.
"""

from bisect import bisect_left, insort
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter

from schedsim.content import Content
from schedsim.memory.base import NOTHING, BlockPairs, Found
from schedsim.memory.blocks import BlockTables
from schedsim.request import Request

_by_order = attrgetter("order")


@dataclass(frozen=True, slots=True)
class _Lookup:
    """The cached blocks that a request begins with; right until one of them or `missing` changes.

    `missing` is the key that was not found, None if all were.
    """

    request_id: int
    known_tokens: int
    blocks: list[int]
    members: frozenset[int]
    idle: int
    missing: int | None


class PrefixCachedKVCache(BlockTables):
    """Full blocks keep their content, named by a key, until they are needed for something else.

    A block gets its key (`Content.block_key`) when an iteration that fills it is planned, whether
    by a prefill or by decodes, and loses it when it is taken anew. A request that holds nothing
    begins with the longest run of cached blocks, all but its last known token at most; of equal
    blocks it gets the oldest. Blocks that nobody holds are free, keyed or not: those without a key
    are taken first, as a stack; those with one by when they came free, a request's last block
    first. With `queued`, as in vLLM 0.11, all are taken by when they came free. Blocks of equal
    content are not merged.

    With `has_stale_keys` the blocks that an iteration planned for a request which it then preempts
    keep their keys, as in vLLM: who finds them later reads what nobody wrote.

    Like the decode calendar, who fills a block is found without a look at those who do not.
    """

    has_prefix_cache = True

    def __init__(
        self,
        total_blocks: int,
        block_size: int,
        content: Content,
        host_blocks: int = 0,
        queued: bool = False,
        has_stale_keys: bool = False,
    ) -> None:
        super().__init__(total_blocks, block_size, host_blocks)
        self.has_stale_keys = has_stale_keys
        self._content = content
        self._queued = queued
        self._unkeyed = list(range(total_blocks, 0, -1))
        self._idle: OrderedDict[int, None] = OrderedDict()
        self._users = [0] * (total_blocks + 1)
        self._key_of: list[int | None] = [None] * (total_blocks + 1)
        self._oldest: dict[int, int] = {}
        self._copies: dict[int, dict[int, None]] = {}
        self._keyed: dict[int, int] = {}
        self._fresh: dict[int, int] = {}
        self._filling: dict[int, list[Request]] = {}
        self._lookup: _Lookup | None = None

    @property
    def free_blocks(self) -> int:
        return len(self._unkeyed) + len(self._idle)

    def find(self, request: Request) -> Found:
        if request.is_swapped:
            return NOTHING
        lookup = self._look_up(request)
        return Found(len(lookup.blocks), lookup.idle)

    def content_key(self, request: Request, block: int) -> int | None:
        if (block + 1) * self.block_size > request.num_known_tokens:
            return None
        return self._content.block_key(request.id, block, self.block_size)

    def blocks_to_admit(self, request: Request, tokens: int) -> int:
        if request.is_swapped:
            return self.blocks_for(tokens)
        lookup = self._look_up(request)
        return max(self.blocks_for(tokens) - len(lookup.blocks), 0) + lookup.idle

    def reserve(self, request: Request, tokens: int) -> bool:
        if request.id in self._tables:
            return super().reserve(request, tokens)
        if self.blocks_to_admit(request, tokens) > self.free_blocks:
            return False
        found = self._look_up(request).blocks
        self._hold(found)
        need = max(self.blocks_for(tokens) - len(found), 0)
        self._tables[request.id] = found + self._take(need)
        self._keyed[request.id] = len(found)
        return True

    def plan(self, request: Request, tokens: int) -> None:
        first, full = self._keyed[request.id], tokens // self.block_size
        if full <= first:
            return
        keys = self._content.block_keys(request.id, first, full, self.block_size)
        for block, key in zip(self._tables[request.id][first:full], keys, strict=True):
            self._add_key(block, key)
            self._fresh[block] = request.id
        self._keyed[request.id] = full

    def relying_on(self, request: Request, others: Iterable[Request]) -> list[Request]:
        fills = {block for block, owner in self._fresh.items() if owner == request.id}
        if not fills:
            return []
        return [
            other
            for other in others
            if other is not request and not fills.isdisjoint(self.block_table(other))
        ]

    def commit(self) -> int:
        self._fresh.clear()
        return 0

    def release(self, request: Request) -> int:
        for block in self._tables[request.id] if self._fresh else ():
            if self._fresh.get(block) == request.id:
                assert self._users[block] == 1, "a block goes that somebody relies on"
                del self._fresh[block]
                if not self.has_stale_keys:
                    self._drop_key(block)
        shared = super().release(request)
        del self._keyed[request.id]
        return shared

    def swap_out(self, request: Request) -> BlockPairs | None:
        table = self._tables[request.id] if self._fresh else ()
        if any(self._fresh.get(block, request.id) != request.id for block in table):
            return None  # found in this iteration, not computed yet
        return super().swap_out(request)

    def swap_in(self, request: Request, tokens: int) -> BlockPairs | None:
        pairs = super().swap_in(request, tokens)
        if pairs is not None:
            full = request.num_computed_tokens // self.block_size
            keys = self._content.block_keys(request.id, 0, full, self.block_size)
            for block, key in zip(self._tables[request.id], keys, strict=False):
                self._add_key(block, key)
            self._keyed[request.id] = full
        return pairs

    def join(self, request: Request) -> None:
        super().join(request)
        insort(self._filling.setdefault(self._turn(request), []), request, key=_by_order)

    def leave(self, request: Request) -> None:
        super().leave(request)
        turn = self._turn(request)
        filling = self._filling[turn]
        del filling[bisect_left(filling, request.order, key=_by_order)]
        if not filling:
            del self._filling[turn]

    def grow(self, request: Request) -> bool:
        if not super().grow(request):
            return False
        self._key_decode(request)
        return True

    def grow_all(self) -> None:
        super().grow_all()
        turn, block_size = self._iteration % self.block_size, self.block_size
        if self.decodes_ahead:
            for request in self._filling.get((turn - 1) % block_size, ()):
                self._key_decode(request)
        for request in self._filling.get(turn, ()):
            self._key_decode(request)

    def settle(self, request: Request) -> None:
        self._key_until(request, request.num_computed_tokens)

    def check(self) -> None:
        super().check()
        users = [0] * (self.total_blocks + 1)
        for table in self._tables.values():
            for block in table:
                users[block] += 1
        assert users == self._users, "the users of a block are miscounted"
        free = sorted([*self._unkeyed, *self._idle])
        assert free == [b for b in range(1, self.total_blocks + 1) if not users[b]], (
            "a block is lost, or free and held"
        )
        assert all(self._key_of[block] is None for block in self._unkeyed), "a key is lost"
        keyed = {block: key for block, key in enumerate(self._key_of) if key is not None}
        cached: dict[int, int] = {block: key for key, block in self._oldest.items()}
        for key, copies in self._copies.items():
            assert copies, "an empty list of copies is kept"
            assert key in self._oldest, "copies of a block without the oldest"
            cached.update(dict.fromkeys(copies, key))
        assert cached == keyed, "the index and the blocks differ in their keys"
        keys = (self._key_of[block] for block in self._idle)
        assert self._queued or all(key is not None for key in keys), "a key is missing"
        self._check_lookup()
        self._check_requests()

    def _check_lookup(self) -> None:
        lookup = self._lookup
        if lookup is None:
            return
        for block in lookup.blocks:
            key = self._key_of[block]
            assert key is not None, "a remembered lookup found what is gone"
            assert self._oldest[key] == block, "a remembered lookup found a copy"
        assert lookup.idle == sum(not self._users[block] for block in lookup.blocks), (
            "a remembered lookup miscounts who holds what it found"
        )
        assert lookup.missing not in self._oldest, "a remembered lookup misses a block"

    def _check_requests(self) -> None:
        assert self._keyed.keys() == self._tables.keys(), "keys are counted for the wrong requests"
        for request_id, table in self._tables.items():
            keys = [self._key_of[block] for block in table]
            full = self._keyed[request_id]
            own = self._content.block_keys(request_id, 0, full, self.block_size)
            assert keys[:full] == list(own), f"request {request_id} holds another one's content"
            assert not any(key is not None for key in keys[full:]), "a block is keyed too early"
        for block, owner in self._fresh.items():
            assert block in self._tables[owner], "a block is filled by who does not hold it"
        waiting = [request for filling in self._filling.values() for request in filling]
        assert sorted(r.id for r in waiting) == sorted(self._members), "a member fills no block"
        for turn, filling in self._filling.items():
            assert filling == sorted(filling, key=_by_order), "members fill out of running order"
            assert all(self._turn(request) == turn for request in filling), "it fills elsewhere"

    def _take(self, count: int) -> list[int]:
        taken = self._unkeyed[-count:] if count else []
        taken.reverse()
        if count:
            del self._unkeyed[-count:]
        for _ in range(count - len(taken)):
            block = self._idle.popitem(last=False)[0]
            if self._key_of[block] is not None:
                self._drop_key(block)
            taken.append(block)
        users = self._users
        for block in taken:
            users[block] = 1
        return taken

    def _give_back(self, table: list[int]) -> int:
        self._forget_lookup(table)
        users, key_of, idle = self._users, self._key_of, self._idle
        unkeyed = []
        shared = 0
        for block in reversed(table):
            users[block] -= 1
            if users[block]:
                shared += 1
            elif key_of[block] is None and not self._queued:
                unkeyed.append(block)
            else:
                idle[block] = None
        unkeyed.reverse()
        self._unkeyed += unkeyed
        return shared

    def _hold(self, blocks: list[int]) -> None:
        """Make a request a user of cached blocks."""
        self._forget_lookup(blocks)
        users = self._users
        for block in blocks:
            if not users[block]:
                del self._idle[block]
            users[block] += 1

    def _look_up(self, request: Request) -> _Lookup:
        lookup, known = self._lookup, request.num_known_tokens
        if lookup is not None and (lookup.request_id, lookup.known_tokens) == (request.id, known):
            return lookup
        oldest = self._oldest
        blocks = []
        missing = None
        for key in self._content.block_keys(
            request.id, 0, (known - 1) // self.block_size, self.block_size
        ):
            block = oldest.get(key)
            if block is None:
                missing = key
                break
            blocks.append(block)
        users = self._users
        idle = sum(not users[block] for block in blocks)
        self._lookup = lookup = _Lookup(request.id, known, blocks, frozenset(blocks), idle, missing)
        return lookup

    def _forget_lookup(self, blocks: list[int]) -> None:
        """The keys or users of `blocks` change."""
        if self._lookup is not None and not self._lookup.members.isdisjoint(blocks):
            self._lookup = None

    def _add_key(self, block: int, key: int) -> None:
        self._key_of[block] = key
        if self._oldest.setdefault(key, block) != block:
            self._copies.setdefault(key, {})[block] = None
        elif self._lookup is not None and self._lookup.missing == key:
            self._lookup = None

    def _drop_key(self, block: int) -> None:
        key = self._key_of[block]
        assert key is not None, "a block without a key is dropped from the index"
        self._key_of[block] = None
        if self._lookup is not None and block in self._lookup.members:
            self._lookup = None
        copies = self._copies.get(key)
        if self._oldest[key] != block:
            assert copies is not None, "a copy is not listed"
            del copies[block]
        elif copies is None:
            del self._oldest[key]
        else:
            self._oldest[key] = next(iter(copies))
            del copies[self._oldest[key]]
        if copies is not None and not copies:
            del self._copies[key]

    def _key_decode(self, request: Request) -> None:
        """The planned iteration computes the next token of a decode, which may be in flight."""
        computed = request.num_computed_tokens
        self._key_until(request, min(computed + 1, request.num_known_tokens))
        filled = (computed + 1) // self.block_size
        if self._keyed[request.id] == filled and (computed + 1) % self.block_size == 0:
            self._fresh[self._tables[request.id][filled - 1]] = request.id

    def _key_until(self, request: Request, tokens: int) -> None:
        """Give a key to every block that the first `tokens` tokens fill."""
        for index in range(self._keyed[request.id], tokens // self.block_size):
            block = self._tables[request.id][index]
            self._add_key(block, self._content.block_key(request.id, index, self.block_size))
            self._keyed[request.id] = index + 1

    def _turn(self, request: Request) -> int:
        """The iterations, modulo the block size, in which a decode fills a block."""
        return (self._iteration - request.num_computed_tokens - 1) % self.block_size
