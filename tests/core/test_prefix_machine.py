"""Managers with a prefix cache against the tokens themselves, as Hypothesis state machines."""

from array import array

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from schedsim.content import Content
from schedsim.memory import KVCache, PrefixCachedKVCache, RadixKVCache
from schedsim.request import Request
from schedsim.scheduler.decode_set import DecodeSet
from tests.core.harness import Jobs
from tests.core.paper_device import VOCAB

LENGTH = 30
"""Tokens of prompt and output of every request."""


class PrefixMachine(RuleBasedStateMachine):
    """Requests that begin alike; an iteration is planned by several rules and run by one.

    The model holds the token in every slot that was ever written, and what the iteration that is
    being planned will write.
    """

    @initialize(
        chains=st.lists(st.lists(st.integers(0, 1), max_size=20), min_size=6, max_size=6),
        blocks=st.integers(1, 40),
        block_size=st.sampled_from([1, 2, 3, 8]),
    )
    def start(self, chains: list[list[int]], blocks: int, block_size: int) -> None:
        jobs = Jobs([LENGTH - 10] * 6, [10] * 6, chains=chains)
        self.content = Content.of(jobs.trace(), jobs.split())
        self.kv_cache = self.make(blocks, block_size, self.content)
        self.decode_set = DecodeSet(array("d", [0.0]))
        self.waiting = [Request(i, 0.0, LENGTH - 10, 10) for i in range(6)]
        self.running: list[Request] = []
        self.admitted: list[Request] = []
        self.planned: dict[int, int] = {}
        self.decodes: list[Request] = []
        self.slots: dict[tuple[int, int], int] = {}
        self.next_order = 0

    def make(self, blocks: int, block_size: int, content: Content) -> KVCache:
        return PrefixCachedKVCache(blocks, block_size, content)

    def keys(self) -> set[int]:
        """The keys of all blocks that can be found."""
        assert isinstance(self.kv_cache, PrefixCachedKVCache)
        return {key for key in self.kv_cache._key_of if key is not None}

    def tokens(self, request: Request, stop: int) -> list[int]:
        return self.content.token_ids(request.id, 0, stop, VOCAB).tolist()

    def held(self) -> set[int]:
        return {block for r in self.running for block in self.kv_cache.block_table(r)}

    def prefilling(self) -> list[Request]:
        return [r for r in self.running if r._decode_set is None and r.id not in self.planned]

    @precondition(lambda self: self.waiting and not self.decodes)
    @rule(data=st.data(), tokens=st.integers(1, LENGTH), spare=st.integers(0, 10))
    def admit(self, data: st.DataObject, tokens: int, spare: int) -> None:
        request = data.draw(st.sampled_from(self.waiting))
        block_size, total = self.kv_cache.block_size, self.kv_cache.total_blocks
        found = self.kv_cache.find(request)
        begin = found.blocks * block_size
        assert begin < request.num_known_tokens
        tokens = min(tokens, request.num_known_tokens - begin)
        free, held = self.kv_cache.free_blocks, self.held()
        room = begin + tokens + spare
        need = self.kv_cache.blocks_to_admit(request, room)
        assert need == self.kv_cache.blocks_for(room) - found.blocks + found.idle
        assert self.kv_cache.reserve(request, room) == (need <= total - len(held))
        if need > free:
            assert self.kv_cache.free_blocks == free
            assert not self.kv_cache.block_table(request)
            return
        assert self.kv_cache.free_blocks == free - need
        table = self.kv_cache.block_table(request)
        assert found.idle == len(set(table[: found.blocks]) - held)
        assert len(table) == self.kv_cache.blocks_for(room)
        self.waiting.remove(request)
        self.running.append(request)
        self.admitted.append(request)
        request._computed = begin
        request.order = self.next_order
        self.next_order += 1
        self.plan(request, begin + tokens)

    @precondition(lambda self: self.prefilling())
    @rule(data=st.data(), tokens=st.integers(1, LENGTH))
    def extend(self, data: st.DataObject, tokens: int) -> None:
        request = data.draw(st.sampled_from(self.prefilling()))
        tokens = min(request._computed + tokens, LENGTH)
        if tokens > request._computed and self.kv_cache.reserve(request, tokens):
            self.plan(request, tokens)

    def plan(self, request: Request, tokens: int) -> None:
        self.kv_cache.plan(request, tokens)
        self.planned[request.id] = tokens

    @precondition(lambda self: self.decode_set.members and not self.decodes)
    @rule(data=st.data())
    def decode(self, data: st.DataObject) -> None:
        """All members at once where they fit; else one by one, and who has no room is held."""
        members = list(self.decode_set.members)
        if data.draw(st.booleans()) and len(self.kv_cache.needy) <= self.kv_cache.free_blocks:
            self.kv_cache.grow_all()
        else:
            for request in members:
                if data.draw(st.booleans()) or not self.kv_cache.grow(request):
                    self.leave(request)
        self.decodes = list(self.decode_set.members)

    def leave(self, request: Request) -> None:
        self.kv_cache.leave(request)
        self.decode_set.leave(request)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def preempt(self, data: st.DataObject) -> None:
        self.drop(data.draw(st.sampled_from(self.running)))

    def drop(self, request: Request) -> None:
        for other in self.kv_cache.relying_on(request, self.admitted):
            if other in self.running:
                self.drop(other)
        others = [r for r in self.running if r is not request]
        table = list(self.kv_cache.block_table(request))
        shared = [b for b in table if any(b in self.kv_cache.block_table(r) for r in others)]
        assert self.kv_cache.release(request) == len(shared)
        if request._decode_set is not None:
            self.decode_set.leave(request)
        if request in self.decodes:
            self.decodes.remove(request)
        request._computed = 0
        self.planned.pop(request.id, None)
        self.running.remove(request)
        if request in self.admitted:
            self.admitted.remove(request)
        self.waiting.append(request)
        with pytest.raises(KeyError):
            self.kv_cache.release(request)

    @rule()
    def run(self) -> None:
        """The iteration runs: what it computes is written, then everything is read."""
        for request in self.running:
            stop = self.planned.get(request.id, request.num_computed_tokens)
            if request in self.decodes:
                stop = request.num_computed_tokens + 1
            self.write(request, request.num_computed_tokens, stop)
            if request.id in self.planned:
                request._computed = stop
        self.kv_cache.commit()
        if self.decodes:
            self.decode_set.advance()
            self.decode_set.end(0.0)
            self.kv_cache.advance()
        self.planned, self.decodes, self.admitted = {}, [], []
        for request in list(self.running):
            if request.num_computed_tokens >= LENGTH - 1:
                self.drop(request)

    def write(self, request: Request, start: int, stop: int) -> None:
        table, block_size = self.kv_cache.block_table(request), self.kv_cache.block_size
        for place, token in list(enumerate(self.tokens(request, stop)))[start:]:
            self.slots[table[place // block_size], place % block_size] = token

    @precondition(lambda self: not self.planned)
    @rule(data=st.data())
    def join(self, data: st.DataObject) -> None:
        """Between two iterations: a prefill that is done begins to decode."""
        ready = [r for r in self.prefilling() if r._computed >= LENGTH - 10]
        if ready and not self.decodes:
            request = data.draw(st.sampled_from(ready))
            self.decode_set.join(request)
            self.kv_cache.join(request)

    @invariant()
    def books_hold(self) -> None:
        if not hasattr(self, "kv_cache"):
            return
        self.kv_cache.check()
        assert self.kv_cache.free_blocks == self.kv_cache.total_blocks - len(self.held())

    @invariant()
    def every_slot_holds_its_token_once_the_iteration_has_run(self) -> None:
        if not hasattr(self, "kv_cache") or self.planned or self.decodes:
            return
        block_size = self.kv_cache.block_size
        for request in self.running:
            table = self.kv_cache.block_table(request)
            for place, token in enumerate(self.tokens(request, request.num_computed_tokens)):
                assert self.slots[table[place // block_size], place % block_size] == token
        for request in self.waiting:
            known = request.num_known_tokens
            found = self.kv_cache.find(request).blocks
            assert found == self.longest_run(request, (known - 1) // block_size)

    def longest_run(self, request: Request, most: int) -> int:
        """The longest run of blocks whose whole prefix some keyed block holds."""
        keys = self.content.block_keys(request.id, 0, most, self.kv_cache.block_size)
        run, found = 0, self.keys()
        while run < most and keys[run] in found:
            run += 1
        return run


class QueuedMachine(PrefixMachine):
    """Freed blocks come to the end of the queue, with and without a key."""

    def make(self, blocks: int, block_size: int, content: Content) -> KVCache:
        return PrefixCachedKVCache(blocks, block_size, content, queued=True)


class RadixMachine(PrefixMachine):
    """The radix tree; what it finds is compared with all pages that it stores, one by one."""

    def make(self, blocks: int, block_size: int, content: Content) -> KVCache:
        return RadixKVCache(blocks, block_size, content)

    def keys(self) -> set[int]:
        assert isinstance(self.kv_cache, RadixKVCache)
        return {
            self.content.block_key(node.owner, page, self.kv_cache.block_size)
            for node in self.kv_cache._tree.nodes()
            for page in range(node.start, node.stop)
        }

    @invariant()
    def equal_pages_are_stored_once(self) -> None:
        if hasattr(self, "kv_cache"):
            assert isinstance(self.kv_cache, RadixKVCache)
            assert len(self.keys()) == sum(len(n.blocks) for n in self.kv_cache._tree.nodes())


TestPrefixMachine = PrefixMachine.TestCase
TestQueuedMachine = QueuedMachine.TestCase
TestRadixMachine = RadixMachine.TestCase
