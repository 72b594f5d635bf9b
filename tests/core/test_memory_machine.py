"""Every memory manager without a prefix cache against a model, as a Hypothesis state machine."""

from array import array
from collections.abc import Callable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from schedsim.memory import KVCache, make_kv_cache
from schedsim.request import Request
from schedsim.scheduler.decode_set import DecodeSet

Slots = dict[tuple[int, int], tuple[int, int]]
"""What every slot holds: (block, offset) to (request, place)."""

PAGED = ("paged", "paged,free_order=back", "vattention")
RESERVED = (
    "contiguous",
    "contiguous,overrun=preempt",
    "contiguous,reserve=max",
    "contiguous,reserve=predicted",
    "contiguous,reserve=predicted,margin=0.5,compaction=true",
    "buddy",
    "buddy,reserve=exact,overrun=preempt",
    "buddy,reserve=max",
)


class MemoryMachine(RuleBasedStateMachine):
    """The model knows for each request how many tokens it stores, and on paper where.

    Every token is written to the slot that the block table names when it is computed, follows the
    moves and swaps, and must always be found where the table says.
    """

    specs = PAGED

    @initialize(
        blocks=st.integers(1, 40),
        block_size=st.sampled_from([1, 2, 3, 16]),
        host_blocks=st.sampled_from([0, 3, 40]),
        data=st.data(),
    )
    def start(self, blocks: int, block_size: int, host_blocks: int, data: st.DataObject) -> None:
        spec = data.draw(st.sampled_from(self.specs))
        tokens = max(blocks * block_size // 2, 1)
        self.kv_cache: KVCache = make_kv_cache(
            f"{spec},host_blocks={host_blocks}", blocks, block_size, max_model_len=tokens
        )
        self.is_exact = spec in PAGED
        self.swapped: dict[int, tuple[Request, list[int]]] = {}
        self.decode_set = DecodeSet(array("d", [0.0]))
        self.requests: dict[int, Request] = {}
        self.tokens: dict[int, int] = {}
        self.slots: Slots = {}
        self.host: Slots = {}
        self.next_id = 0

    # ---- the model

    def table(self, request: Request) -> list[int]:
        return list(self.kv_cache.block_table(request))

    def room(self, request_id: int) -> int:
        return len(self.table(self.requests[request_id])) * self.kv_cache.block_size

    @property
    def model_free(self) -> int:
        held = sum(len(self.table(request)) for request in self.requests.values())
        return self.kv_cache.total_blocks - held

    def members(self) -> list[int]:
        return [request.id for request in self.decode_set.members]

    def outsiders(self) -> list[int]:
        return [i for i in self.requests if i not in self.members()]

    def write(self, request: Request, start: int, stop: int) -> None:
        table, block_size = self.table(request), self.kv_cache.block_size
        for place in range(start, stop):
            self.slots[table[place // block_size], place % block_size] = (request.id, place)

    def copy(self, source: Slots, target: Slots, pairs: list[tuple[int, int]]) -> None:
        read = {
            (to, place): source.get((origin, place))
            for origin, to in pairs
            for place in range(self.kv_cache.block_size)
        }
        target.update({slot: token for slot, token in read.items() if token is not None})

    def make_moves(self) -> None:
        for request, pairs in self.kv_cache.take_moves():
            assert request.id in self.requests
            self.copy(self.slots, self.slots, pairs)

    def unchanged(self, act: Callable[[], object]) -> None:
        """`act` fails and changes nothing."""

        def state() -> list[object]:
            tables = [self.table(request) for request in self.requests.values()]
            return [self.kv_cache.free_blocks, self.kv_cache.num_swapped, tables]

        before = state()
        assert not act()
        assert state() == before, "what failed changed something"
        assert not self.kv_cache.take_moves(), "what failed moved something"

    # ---- rules

    @rule(
        tokens=st.integers(1, 60),
        spare=st.integers(0, 40),
        limit=st.integers(1, 60),
        predicted=st.none() | st.integers(1, 60),
    )
    def admit(self, tokens: int, spare: int, limit: int, predicted: int | None) -> None:
        request = Request(self.next_id, 0.0, tokens, limit, order=self.next_id)
        request.predicted_output = predicted
        self.next_id += 1
        need = self.kv_cache.blocks_to_admit(request, tokens + spare)
        assert need >= self.kv_cache.blocks_for(tokens + spare)
        if self.reserve(request, tokens + spare, need):
            assert len(self.table(request)) == need
            self.requests[request.id] = request
            self.tokens[request.id] = tokens
            request._computed = tokens
            self.write(request, 0, tokens)

    @precondition(lambda self: self.outsiders())
    @rule(data=st.data(), more=st.integers(0, 40))
    def extend(self, data: st.DataObject, more: int) -> None:
        request = self.requests[data.draw(st.sampled_from(self.outsiders()))]
        tokens, held = self.tokens[request.id] + more, len(self.table(request))
        if self.reserve(request, tokens, self.kv_cache.blocks_for(tokens) - held):
            assert len(self.table(request)) >= held
            self.write(request, self.tokens[request.id], tokens)
            request._computed = self.tokens[request.id] = tokens

    def reserve(self, request: Request, tokens: int, need: int) -> bool:
        """Ask for room; it takes at least `need` free blocks, and no more if any will do."""
        free = self.model_free
        if need > free:
            self.unchanged(lambda: self.kv_cache.reserve(request, tokens))
            return False
        if not self.kv_cache.reserve(request, tokens):
            assert not self.is_exact, "any block would have done"
            self.unchanged(lambda: self.kv_cache.reserve(request, tokens))
            return False
        self.make_moves()
        assert len(self.table(request)) >= self.kv_cache.blocks_for(tokens)
        return True

    @precondition(lambda self: self.outsiders())
    @rule(data=st.data())
    def join(self, data: st.DataObject) -> None:
        request = self.requests[data.draw(st.sampled_from(self.outsiders()))]
        self.decode_set.join(request)
        self.kv_cache.join(request)

    @precondition(lambda self: self.members())
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        request = self.requests[data.draw(st.sampled_from(self.members()))]
        self.leave_one(request)

    def leave_one(self, request: Request) -> None:
        self.kv_cache.leave(request)
        self.decode_set.leave(request)

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.release_one(self.requests[data.draw(st.sampled_from(list(self.requests)))])

    def release_one(self, request: Request) -> None:
        del self.requests[request.id], self.tokens[request.id]
        assert self.kv_cache.release(request) == 0
        if request._decode_set is not None:
            self.decode_set.leave(request)
        with pytest.raises(KeyError):
            self.kv_cache.release(request)

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def swap_out(self, data: st.DataObject) -> None:
        request = self.requests[data.draw(st.sampled_from(list(self.requests)))]
        need = self.kv_cache.blocks_for(self.tokens[request.id])
        table = self.table(request)
        host_free = self.kv_cache.host_blocks - sum(len(kept) for _, kept in self.swapped.values())
        if not 0 < need <= host_free:
            self.unchanged(lambda: self.kv_cache.swap_out(request))
            return
        pairs = self.kv_cache.swap_out(request)
        assert pairs is not None
        assert [source for source, _ in pairs] == table[:need]
        held = {block for _, kept in self.swapped.values() for block in kept}
        assert held.isdisjoint(target for _, target in pairs)
        self.copy(self.slots, self.host, pairs)
        self.swapped[request.id] = (request, [target for _, target in pairs])
        self.release_one(request)
        request.is_swapped = True

    @precondition(lambda self: self.swapped)
    @rule(data=st.data(), spare=st.integers(0, 20), comes_back=st.booleans())
    def swap_in(self, data: st.DataObject, spare: int, comes_back: bool) -> None:
        request, kept = self.swapped[data.draw(st.sampled_from(list(self.swapped)))]
        tokens = request.num_computed_tokens + spare
        if not comes_back:
            self.kv_cache.forget_swapped(request)
            del self.swapped[request.id]
            return
        need = self.kv_cache.blocks_to_admit(request, tokens)
        if need > self.model_free:
            self.unchanged(lambda: self.kv_cache.swap_in(request, tokens))
            return
        pairs = self.kv_cache.swap_in(request, tokens)
        if pairs is None:
            assert not self.is_exact, "any block would have done"
            return
        self.make_moves()
        assert [source for source, _ in pairs] == kept
        assert [target for _, target in pairs] == self.table(request)[: len(kept)]
        self.copy(self.host, self.slots, pairs)
        del self.swapped[request.id]
        request.is_swapped = False
        self.requests[request.id] = request
        self.tokens[request.id] = request.num_computed_tokens

    @precondition(lambda self: self.members())
    @rule(one_by_one=st.booleans())
    def decode(self, one_by_one: bool) -> None:
        """One iteration of the decode set; who finds no slot leaves it first."""
        needy = [i for i in self.members() if self.room(i) == self.tokens[i]]
        assert [request.id for request in self.kv_cache.needy] == needy
        at_once = self.kv_cache.can_grow_all()
        if self.is_exact:
            assert at_once == (len(needy) <= self.model_free)
        if at_once and not one_by_one:
            self.kv_cache.grow_all()
            self.make_moves()
        else:
            self.decode_one_by_one(needy)
        for request in self.decode_set.members:
            self.write(request, self.tokens[request.id], self.tokens[request.id] + 1)
            self.tokens[request.id] += 1
        self.decode_set.advance()
        self.decode_set.end(0.0)
        self.kv_cache.advance()

    def decode_one_by_one(self, needy: list[int]) -> None:
        for request in list(self.decode_set.members):
            room, free = self.room(request.id), self.model_free
            if not free and request.id in needy:
                self.unchanged(lambda request=request: self.kv_cache.grow(request))
                self.leave_one(request)
            elif not self.kv_cache.grow(request):
                assert request.id in needy
                assert not self.is_exact, "any block would have done"
                self.leave_one(request)
            else:
                self.make_moves()
                grown = self.room(request.id) > room
                assert grown == (request.id in needy)

    # ---- what always holds

    @invariant()
    def books_hold(self) -> None:
        if not hasattr(self, "kv_cache"):
            return
        kv_cache = self.kv_cache
        kv_cache.check()
        self.decode_set.check()
        assert kv_cache.free_blocks == self.model_free
        assert kv_cache.num_swapped == len(self.swapped)
        owners = [block for request in self.requests.values() for block in self.table(request)]
        assert len(set(owners)) == len(owners), "a block has two owners"
        assert all(1 <= block <= kv_cache.total_blocks for block in owners)
        for i, request in self.requests.items():
            assert request.num_computed_tokens == self.tokens[i] <= self.room(i)

    @invariant()
    def every_token_is_where_the_table_says(self) -> None:
        if not hasattr(self, "kv_cache"):
            return
        block_size = self.kv_cache.block_size
        for i, request in self.requests.items():
            table = self.table(request)
            for place in range(self.tokens[i]):
                slot = table[place // block_size], place % block_size
                assert self.slots[slot] == (i, place), f"token {place} of {i} is not in {slot}"

    @invariant()
    def the_use_adds_up(self) -> None:
        if not hasattr(self, "kv_cache"):
            return
        stored = sum(self.tokens.values())
        use = self.kv_cache.use(stored)
        held = (self.kv_cache.total_blocks - self.model_free) * self.kv_cache.block_size
        assert use.stored == stored
        assert use.stored + use.reserved + use.internal_waste == held
        assert min(use) >= 0
        assert use.external_waste in (0, self.model_free * self.kv_cache.block_size)


class ReservedMachine(MemoryMachine):
    """Managers whose requests lie in one piece."""

    specs = RESERVED

    @invariant()
    def requests_lie_in_one_piece(self) -> None:
        if not hasattr(self, "kv_cache"):
            return
        for request in self.requests.values():
            table = self.table(request)
            assert table == list(range(table[0], table[0] + len(table)))


TestMemoryMachine = MemoryMachine.TestCase
TestReservedMachine = ReservedMachine.TestCase
