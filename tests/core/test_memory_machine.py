"""Every memory manager against a dictionary model, as a Hypothesis state machine."""

from array import array

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from schedsim.memory import KVCache, PagedKVCache
from schedsim.request import Request
from schedsim.scheduler.decode_set import DecodeSet


class MemoryMachine(RuleBasedStateMachine):
    """The model knows for each request how many tokens it stores and how many slots it holds."""

    @initialize(
        blocks=st.integers(1, 40),
        block_size=st.sampled_from([1, 2, 3, 16]),
        host_blocks=st.sampled_from([0, 3, 40]),
    )
    def start(self, blocks: int, block_size: int, host_blocks: int) -> None:
        self.kv_cache: KVCache = PagedKVCache(blocks, block_size, host_blocks)
        self.swapped: dict[int, tuple[Request, list[int]]] = {}
        self.decode_set = DecodeSet(array("d", [0.0]))
        self.requests: dict[int, Request] = {}
        self.slots: dict[int, int] = {}
        self.tokens: dict[int, int] = {}
        self.next_id = 0

    @property
    def model_free(self) -> int:
        held = sum(self.slots.values()) // self.kv_cache.block_size
        return self.kv_cache.total_blocks - held

    def members(self) -> list[int]:
        return [request.id for request in self.decode_set.members]

    def outsiders(self) -> list[int]:
        return [i for i in self.requests if i not in self.members()]

    @rule(tokens=st.integers(1, 60), spare=st.integers(0, 40))
    def admit(self, tokens: int, spare: int) -> None:
        request = Request(self.next_id, 0.0, tokens, 1, order=self.next_id)
        self.next_id += 1
        self.expect_reserve(request, tokens + spare)
        if request.id in self.slots:
            self.requests[request.id] = request
            request._computed = self.tokens[request.id] = tokens

    @precondition(lambda self: self.outsiders())
    @rule(data=st.data(), more=st.integers(0, 40))
    def extend(self, data: st.DataObject, more: int) -> None:
        request = self.requests[data.draw(st.sampled_from(self.outsiders()))]
        before = self.slots[request.id]
        self.expect_reserve(request, self.tokens[request.id] + more)
        if self.slots[request.id] >= self.tokens[request.id] + more:
            request._computed = self.tokens[request.id] = self.tokens[request.id] + more
        assert self.slots[request.id] >= before

    def expect_reserve(self, request: Request, tokens: int) -> None:
        block_size = self.kv_cache.block_size
        held = self.slots.get(request.id, 0)
        need = -(-tokens // block_size) - held // block_size
        before = (self.kv_cache.free_blocks, list(self.kv_cache.block_table(request)))
        fits = need <= self.model_free
        assert self.kv_cache.reserve(request, tokens) == fits
        if fits:
            self.slots[request.id] = held + max(need, 0) * block_size
        else:
            after = (self.kv_cache.free_blocks, list(self.kv_cache.block_table(request)))
            assert after == before, "a failed reservation changed something"

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
        self.kv_cache.leave(request)
        self.decode_set.leave(request)

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        self.release_one(self.requests[data.draw(st.sampled_from(list(self.requests)))])

    def release_one(self, request: Request) -> None:
        del self.requests[request.id]
        self.kv_cache.release(request)
        if request._decode_set is not None:
            self.decode_set.leave(request)
        del self.slots[request.id], self.tokens[request.id]
        with pytest.raises(KeyError):
            self.kv_cache.release(request)

    @precondition(lambda self: self.requests)
    @rule(data=st.data())
    def swap_out(self, data: st.DataObject) -> None:
        request = self.requests[data.draw(st.sampled_from(list(self.requests)))]
        need = self.kv_cache.blocks_for(self.tokens[request.id])
        table = list(self.kv_cache.block_table(request))
        pairs = self.kv_cache.swap_out(request)
        host_free = self.kv_cache.host_blocks - sum(len(kept) for _, kept in self.swapped.values())
        assert (pairs is not None) == (0 < need <= host_free)
        if pairs is None:
            assert list(self.kv_cache.block_table(request)) == table
            return
        assert [source for source, _ in pairs] == table[:need]
        held = {block for _, kept in self.swapped.values() for block in kept}
        assert held.isdisjoint(target for _, target in pairs)
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
        need = self.kv_cache.blocks_for(tokens)
        pairs = self.kv_cache.swap_in(request, tokens)
        if need > self.model_free:
            assert pairs is None
            return
        assert pairs is not None
        assert [source for source, _ in pairs] == kept
        assert [target for _, target in pairs] == list(self.kv_cache.block_table(request))[
            : len(kept)
        ]
        del self.swapped[request.id]
        request.is_swapped = False
        self.requests[request.id] = request
        self.slots[request.id] = need * self.kv_cache.block_size
        self.tokens[request.id] = request.num_computed_tokens

    @precondition(lambda self: self.members())
    @rule(one_by_one=st.booleans())
    def decode(self, one_by_one: bool) -> None:
        """One iteration of the decode set; who finds no slot leaves it first."""
        needy = [i for i in self.members() if self.slots[i] == self.tokens[i]]
        assert [request.id for request in self.kv_cache.needy] == needy
        if one_by_one or len(needy) > self.model_free:
            self.decode_one_by_one(needy)
        else:
            self.kv_cache.grow_all()
            for i in needy:
                self.slots[i] += self.kv_cache.block_size
        for i in self.members():
            self.tokens[i] += 1
        self.decode_set.advance()
        self.decode_set.end(0.0)
        self.kv_cache.advance()

    def decode_one_by_one(self, needy: list[int]) -> None:
        for request in list(self.decode_set.members):
            fits = request.id not in needy or self.model_free > 0
            assert self.kv_cache.grow(request) == fits
            if not fits:
                self.kv_cache.leave(request)
                self.decode_set.leave(request)
            elif request.id in needy:
                self.slots[request.id] += self.kv_cache.block_size

    @invariant()
    def model_and_manager_agree(self) -> None:
        if not hasattr(self, "kv_cache"):
            return
        self.kv_cache.check()
        self.decode_set.check()
        assert self.kv_cache.free_blocks == self.model_free
        assert self.kv_cache.num_swapped == len(self.swapped)
        for i, request in self.requests.items():
            table = self.kv_cache.block_table(request)
            assert len(table) * self.kv_cache.block_size == self.slots[i]
            assert request.num_computed_tokens == self.tokens[i] <= self.slots[i]


TestMemoryMachine = MemoryMachine.TestCase
