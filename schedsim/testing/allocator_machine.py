"""`AllocatorMachine`: any memory manager against the tokens themselves, as a state machine."""

import inspect
from array import array
from collections.abc import Callable
from functools import wraps
from typing import Any, ClassVar

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from schedsim.content import Content
from schedsim.memory.base import KVCache
from schedsim.output_limit import Outputs
from schedsim.request import Request, Status
from schedsim.scheduler.decode_set import DecodeSet
from schedsim.testing.allocator_checks import (
    AllocatorChecks,
    Failures,
    are_ids,
    name_of,
)
from schedsim.testing.paper import VOCAB, Paper
from schedsim.testing.violations import AllocatorViolation
from schedsim.traces.trace import PromptBlocks, Trace, TraceSource

Factory = Callable[[], KVCache] | Callable[[int, int, Content], KVCache]

PROMPT, OUTPUT, REQUESTS = 20, 10, 6
LENGTH = PROMPT + OUTPUT

_PICK = st.integers(0, REQUESTS - 1)
_TOKENS = st.integers(1, PROMPT)
_CHAIN: st.SearchStrategy[list[int]] = st.one_of(
    st.just([]), st.just([0] * PROMPT), st.lists(st.integers(0, 1), max_size=PROMPT)
)


def _told(rule_body: Callable[..., None]) -> Callable[..., None]:
    """The rule, with what a manager raises told like what it does wrong."""

    @wraps(rule_body)
    def told(machine: "AllocatorMachine", **drawn: Any) -> None:
        try:
            rule_body(machine, **drawn)
        except AllocatorViolation:
            raise
        except Exception as error:  # a manager is foreign code: anything may come out of it
            machine._fail(f"raises {type(error).__name__}: {error}", error)

    return told


class AllocatorMachine(AllocatorChecks):
    """Drives a memory manager as a scheduler does, with random decisions, and checks every answer.

    An iteration is planned by several rules (`admit`, `extend`, `decode`, `preempt`, `swap_in`, …)
    and made by `run`. The machine keeps the token of every slot, on the device and on the host:
    each iteration writes what it computes, then reads all that every running request has computed,
    through its block table, and must find the tokens that the content declares, whatever was
    shared, copied, moved or swapped in between. Asserted after every step: blocks are free or held,
    none lost; ids run from 1 to the total; no block has two owners unless they share a prefix;
    a refusal changes nothing; releasing twice is a KeyError; who lacks a slot is `needy`; `check`.

    Get a class with `of`. It is a Hypothesis state machine: its `TestCase` is what pytest runs.
    """

    factory: ClassVar[Factory]

    @classmethod
    def of(
        cls, factory: Factory, *, contiguous: bool = False, fragments: bool = False
    ) -> "type[AllocatorMachine]":
        """The machine for what `factory` makes.

        `factory` takes nothing, or (blocks, block size, content): then the machine chooses the
        sizes, and `content` says what the tokens are, which a prefix cache has to know.
        `contiguous`: the manager claims that every block table is a run of consecutive ids.
        `fragments`: it may refuse though enough blocks are free.
        """
        made = {
            "factory": staticmethod(factory),
            "contiguous": contiguous,
            "fragments": fragments,
            "failures": Failures(),
        }
        return type("AllocatorMachine", (cls,), made)

    # ---- the engine around the manager

    @initialize(
        tenths=st.integers(1, 30),
        block_size=st.sampled_from([1, 2, 3, 8]),
        chains=st.lists(_CHAIN, min_size=REQUESTS, max_size=REQUESTS),
        predictions=st.lists(st.integers(1, OUTPUT + 2), min_size=REQUESTS, max_size=REQUESTS),
    )
    def start(
        self, tenths: int, block_size: int, chains: list[list[int]], predictions: list[int]
    ) -> None:
        """Memory for `tenths` tenths of a whole request."""
        type(self).failures.attempt()
        content = _content(chains)
        blocks = -(-tenths * LENGTH // (10 * block_size))
        self.kv_cache = self._make(blocks, block_size, content)
        self.paper = Paper(self.kv_cache.block_size)
        self.decode_set = DecodeSet(array("d", [0.0]))
        self.tokens = [content.token_ids(i, 0, LENGTH, VOCAB).tolist() for i in range(REQUESTS)]
        self.predictions = predictions
        self.waiting = [self._fresh(i) for i in range(REQUESTS)]
        self.running: list[Request] = []
        self.admitted: list[Request] = []
        self.held: list[Request] = []
        self.padding: list[Request] = []
        self.swapped: dict[int, list[int]] = {}
        self.planned: dict[int, int] = {}
        self.decodes: list[Request] | None = None
        self.next_order = 0
        self.steps = []
        kv_cache = self.kv_cache
        self._note(f"{kv_cache.total_blocks} blocks of {kv_cache.block_size} slots")
        self._expect_key_error(self.waiting[0], "which holds nothing")

    def _make(self, blocks: int, block_size: int, content: Content) -> KVCache:
        make: Callable[..., KVCache] = type(self).factory
        if _takes_sizes(make):
            return make(blocks, block_size, content)
        kv_cache = make()
        assert not kv_cache.has_prefix_cache, (
            "the factory of a prefix cache takes (blocks, block_size, content): what it finds "
            "depends on the content of the machine's requests"
        )
        return kv_cache

    def _fresh(self, request_id: int) -> Request:
        predicted = float(self.predictions[request_id])
        return Request(request_id, 0.0, PROMPT, OUTPUT, predicted_output=predicted)

    # ---- rules: planning an iteration

    @precondition(lambda self: len(self.waiting) > len(self.swapped))
    @rule(count=st.integers(1, REQUESTS), tokens=_TOKENS, spare=st.integers(0, 8))
    @_told
    def admit(self, count: int, tokens: int, spare: int) -> None:
        """The first few of the line."""
        for request in [r for r in self.waiting if not r.is_swapped][:count]:
            self._admit(request, tokens, spare)

    def _admit(self, request: Request, tokens: int, spare: int) -> None:
        kv_cache, before = self.kv_cache, self._books()
        found = kv_cache.find(request)
        begin = found.blocks * kv_cache.block_size
        known = request.num_known_tokens
        if begin >= known:
            self._fail(
                f"finds {begin} of the {known} known tokens of {name_of(request)}: one at "
                "least has to be computed"
            )
        stop = begin + min(tokens, known - begin)
        need = kv_cache.blocks_to_admit(request, stop + spare)
        found_told = f"{begin} tokens found, " if begin else ""
        self._note(
            f"admit {name_of(request)}: {found_told}run to token {stop}, room for {stop + spare}"
        )
        if not kv_cache.reserve(request, stop + spare):
            self._expect_refusal(before, need, "reserve")
            return
        self._take_moves()
        self._expect_taken(before, need)
        self._start(request, stop, begin)

    @precondition(lambda self: self.swapped)
    @rule(pick=_PICK, tokens=_TOKENS, spare=st.integers(0, 8))
    @_told
    def swap_in(self, pick: int, tokens: int, spare: int) -> None:
        request_id = list(self.swapped)[pick % len(self.swapped)]
        request = next(r for r in self.waiting if r.id == request_id)
        kv_cache, before = self.kv_cache, self._books()
        known, begin = request.num_known_tokens, request.num_computed_tokens
        stop = begin + min(tokens, known - begin)
        need = kv_cache.blocks_to_admit(request, stop + spare)
        self._note(
            f"swap in {name_of(request)}: {begin} tokens, run to {stop}, room for {stop + spare}"
        )
        pairs = kv_cache.swap_in(request, stop + spare)
        if pairs is None:
            self._expect_refusal(before, need, "swap_in")
            return
        self._take_moves()
        self._expect_taken(before, need)
        kept = self.swapped.pop(request.id)
        table = list(kv_cache.block_table(request))
        if [source for source, _ in pairs] != kept:
            self._fail(f"copies {pairs} for {name_of(request)}, which has host blocks {kept}")
        if [target for _, target in pairs] != table[: len(kept)]:
            self._fail(f"copies {pairs} for {name_of(request)}, whose block table is {table}")
        self.paper.swap_in(pairs)
        request.is_swapped = False
        self._start(request, stop, begin)

    @precondition(lambda self: self._prefilling())
    @rule(pick=_PICK, tokens=_TOKENS)
    @_told
    def extend(self, pick: int, tokens: int) -> None:
        prefilling = self._prefilling()
        self._extend(prefilling[pick % len(prefilling)], tokens)

    def _extend(self, request: Request, tokens: int) -> None:
        before = self._books()
        stop = min(request.num_computed_tokens + tokens, request.num_known_tokens)
        self._note(f"extend {name_of(request)}: run to token {stop}")
        if self.kv_cache.reserve(request, stop):
            self._take_moves()
            self._plan(request, stop)
        else:
            held = len(before.tables[request.id])
            self._expect_refusal(before, self.kv_cache.blocks_for(stop) - held, "reserve")

    @precondition(lambda self: self._decoding() and self.decodes is None)
    @rule()
    @_told
    def decode_all(self) -> None:
        """The whole set at once, where all find room."""
        self._decode_all()

    def _decode_all(self) -> None:
        if self.held or not self.kv_cache.can_grow_all():
            self._decode(self._decoding())
            return
        self._note("decode all")
        self.kv_cache.grow_all()
        self._take_moves()
        self.decodes = list(self.decode_set.members)

    @precondition(lambda self: self._decoding() and self.decodes is None)
    @rule(mask=st.integers(1, 2**REQUESTS - 1))
    @_told
    def decode_some(self, mask: int) -> None:
        """One by one; who is not named, or finds no room, is held."""
        self._decode([r for r in self._decoding() if mask >> r.id & 1])

    def _decode(self, chosen: list[Request]) -> None:
        self._note(f"decode {', '.join(map(name_of, chosen))}")
        kv_cache = self.kv_cache
        grown = []
        for request in chosen:
            if request in self.held:
                self.held.remove(request)
                self._join(request)
            before = self._books()
            if kv_cache.grow(request):
                self._take_moves()
                grown.append(request)
            else:
                if request.id not in before.needy:
                    self._fail(f"grow refuses {name_of(request)}, which has a slot")
                self._expect_refusal(before, 1, "grow")
        for request in list(self.decode_set.members):
            if request not in grown:
                self._hold(request)
        self.decodes = grown

    @precondition(lambda self: self.running)
    @rule(pick=_PICK)
    @_told
    def preempt(self, pick: int) -> None:
        self._preempt(self.running[pick % len(self.running)], swap=False)

    @precondition(lambda self: self.running and self.kv_cache.host_blocks)
    @rule(pick=_PICK)
    @_told
    def swap_out(self, pick: int) -> None:
        self._preempt(self.running[pick % len(self.running)], swap=True)

    def _preempt(self, request: Request, swap: bool) -> None:
        if self.kv_cache.has_prefix_cache:
            for other in self.kv_cache.relying_on(request, self.admitted):
                if other in self.running:
                    self._preempt(other, swap=False)
        computed = request.num_computed_tokens
        pairs = self._swap_out(request) if swap else None
        self._release(request)
        if request in self.held:
            self.held.remove(request)
        if request._decode_set is not None:
            self.decode_set.leave(request)
        if self.decodes and request in self.decodes:
            self.decodes.remove(request)
        self.planned.pop(request.id, None)
        self.running.remove(request)
        if request in self.admitted:
            self.admitted.remove(request)
        request.is_swapped = pairs is not None
        request._computed = 0 if pairs is None else computed
        request.status = Status.PREEMPTED
        self.waiting.append(request)

    def _swap_out(self, request: Request) -> list[tuple[int, int]] | None:
        kv_cache, before = self.kv_cache, self._books()
        need = kv_cache.blocks_for(request.num_computed_tokens)
        self._note(f"swap out {name_of(request)}: {request.num_computed_tokens} tokens")
        pairs = kv_cache.swap_out(request)
        taken = {block for kept in self.swapped.values() for block in kept}
        if pairs is None:
            self._expect_unchanged(before, "swap_out")
            # A prefix cache also refuses what this very iteration is to compute.
            sure = not (kv_cache.has_prefix_cache and (self.planned or self.decodes))
            if sure and 0 < need <= kv_cache.host_blocks - len(taken):
                self._fail(
                    f"swap_out refuses {name_of(request)}, which needs {need} of the "
                    f"{kv_cache.host_blocks - len(taken)} free host blocks"
                )
            return None
        targets = [target for _, target in pairs]
        if [source for source, _ in pairs] != list(before.tables[request.id][:need]):
            self._fail(
                f"copies {pairs} for {name_of(request)}, whose {need} computed blocks are "
                f"{list(before.tables[request.id][:need])}"
            )
        if not (taken.isdisjoint(targets) and are_ids(targets, kv_cache.host_blocks)):
            self._fail(
                f"gives host blocks {targets} to {name_of(request)}; {sorted(taken)} of "
                f"{kv_cache.host_blocks} are taken"
            )
        self.paper.swap_out(pairs)
        self.swapped[request.id] = targets
        return pairs

    @precondition(lambda self: self.swapped)
    @rule(pick=_PICK)
    @_told
    def forget_swapped(self, pick: int) -> None:
        request_id = list(self.swapped)[pick % len(self.swapped)]
        self._note(f"forget r{request_id}, which is swapped out")
        request = next(r for r in self.waiting if r.id == request_id)
        self.kv_cache.forget_swapped(request)
        del self.swapped[request_id]
        self.waiting.remove(request)
        self.waiting.append(self._fresh(request_id))

    # ---- rules: the iteration runs, and what is between two of them

    @precondition(lambda self: self.running)
    @rule(gives_back=st.booleans())
    @_told
    def run(self, gives_back: bool) -> None:
        """Book the iteration, write what it computes, read everything, take what finished."""
        self._run(gives_back)

    @precondition(lambda self: self.running)
    @rule(iterations=st.integers(1, 12))
    @_told
    def serve(self, iterations: int) -> None:
        """Some iterations that run all they can."""
        for _ in range(iterations):
            if self._decoding() and self.decodes is None:
                self._decode_all()
            for request in self._prefilling():
                self._extend(request, LENGTH)
            self.books_hold()
            self._run(gives_back=True)

    def _run(self, gives_back: bool) -> None:
        self._note("run")
        before = {request.id: request.num_computed_tokens for request in self.running}
        first_tokens = self._book()
        for request in self.running:
            start, stop = before[request.id], request.num_computed_tokens
            table = self.kv_cache.block_table(request)
            self.paper.write(table, start, self.tokens[request.id][start:stop])
        self._read_everything()
        if self.decodes:
            self.decode_set.end(0.0)
        for request in first_tokens:
            request._generated += 1
        self.planned, self.decodes, self.admitted = {}, None, []
        for request in [r for r in self.running if r.num_known_tokens == LENGTH]:
            self._finish(request)
            if gives_back:
                self._give_back(request)

    def _book(self) -> list[Request]:
        """The iteration is decided; returns whose prefill it completes.

        Who is done with that decodes from now on, unless the token that it gets is its last.
        """
        if self.decodes is None:
            for request in list(self.decode_set.members):
                self._hold(request)
        if self.decodes:
            self.decode_set.advance()
            self.kv_cache.advance()
        first_tokens = []
        for request in self.running:
            if request.id in self.planned:
                request._computed = self.planned[request.id]
                if request._computed == request.num_known_tokens:
                    first_tokens.append(request)
        for request in first_tokens:
            if request.num_known_tokens + 1 < LENGTH:
                self._join(request)
        if self.kv_cache.has_prefix_cache:
            self._commit()
        return first_tokens

    def _commit(self) -> None:
        free = self.kv_cache.free_blocks
        told = self.kv_cache.commit()
        if self.kv_cache.free_blocks - free != told:
            self._fail(
                f"commit says that {told} blocks were given back, "
                f"{self.kv_cache.free_blocks - free} were"
            )

    def _finish(self, request: Request) -> None:
        if request._decode_set is not None:
            self.kv_cache.leave(request)
            self.decode_set.leave(request)
        self.running.remove(request)
        request.status = Status.FINISHED
        self.padding.append(request)

    @precondition(lambda self: self.padding)
    @rule(pick=_PICK)
    @_told
    def give_back(self, pick: int) -> None:
        """A finished request that kept its blocks for a while."""
        self._give_back(self.padding[pick % len(self.padding)])

    def _give_back(self, request: Request) -> None:
        self._release(request)
        self.padding.remove(request)
        self.waiting.append(self._fresh(request.id))

    # ---- small parts

    def _decoding(self) -> list[Request]:
        members = self.decode_set.members
        return sorted([*members, *self.held], key=lambda request: request.order)

    def _prefilling(self) -> list[Request]:
        return [
            request
            for request in self.running
            if request._decode_set is None
            and request not in self.held
            and request.id not in self.planned
        ]

    def _start(self, request: Request, stop: int, computed: int) -> None:
        self.waiting.remove(request)
        request._computed = computed
        request.status = Status.RUNNING
        request.order = self.next_order
        self.next_order += 1
        self.running.append(request)
        self.admitted.append(request)
        self._plan(request, stop)

    def _plan(self, request: Request, stop: int) -> None:
        room = len(self.kv_cache.block_table(request)) * self.kv_cache.block_size
        if room < stop:
            self._fail(f"says that {name_of(request)} has room for {stop} tokens, it has {room}")
        if self.kv_cache.has_prefix_cache:
            self.kv_cache.plan(request, stop)
        self.planned[request.id] = stop

    def _join(self, request: Request) -> None:
        self.decode_set.join(request)
        self.kv_cache.join(request)

    def _hold(self, request: Request) -> None:
        self.kv_cache.leave(request)
        self.decode_set.leave(request)
        self.held.append(request)

    def _release(self, request: Request) -> None:
        self._note(f"release {name_of(request)}")
        before = self._books()
        table = before.tables[request.id]
        others = {b for i, t in before.tables.items() if i != request.id for b in t}
        kept = sum(block in others for block in table)
        told = self.kv_cache.release(request)
        if told != kept:
            self._fail(
                f"release says that others hold {told} blocks of {name_of(request)}, "
                f"{kept} of {list(table)} they do"
            )
        free = before.free_blocks + len(table) - kept
        if self.kv_cache.free_blocks != free:
            self._fail(
                f"{self.kv_cache.free_blocks} blocks are free after {name_of(request)} gave "
                f"back {len(table) - kept}, {before.free_blocks} were before"
            )
        self._expect_key_error(request, "which was released")

    def _take_moves(self) -> None:
        """Make the copies that the manager asks for, before anything else happens."""
        if self.kv_cache.moves_blocks:
            for request, pairs in self.kv_cache.take_moves():
                self._note(f"move blocks of {name_of(request)}: {pairs}")
                self.paper.move(pairs)


def _takes_sizes(factory: Callable[..., KVCache]) -> bool:
    needed = [
        parameter
        for parameter in inspect.signature(factory).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    assert len(needed) in (0, 3), "a factory takes nothing or (blocks, block_size, content)"
    return len(needed) == 3


def _content(chains: list[list[int]]) -> Content:
    outputs = np.full(REQUESTS, OUTPUT, dtype=np.int32)
    offsets = np.cumsum([0, *map(len, chains)], dtype=np.int64)
    ids = np.array([number for chain in chains for number in chain], dtype=np.int64)
    trace = Trace(
        np.zeros(REQUESTS),
        np.full(REQUESTS, PROMPT, dtype=np.int32),
        outputs,
        TraceSource("machine", "schedsim.testing", rows_read=REQUESTS),
        blocks=PromptBlocks(1, offsets, ids),
    )
    return Content.of(trace, Outputs(outputs, outputs))
