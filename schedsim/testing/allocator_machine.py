"""`AllocatorMachine`: any memory manager against the tokens themselves, as a state machine."""

import inspect
from array import array
from collections.abc import Callable
from typing import ClassVar

import numpy as np
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from schedsim.content import Content
from schedsim.errors import ConfigError
from schedsim.memory.base import KVCache
from schedsim.output_limit import Outputs
from schedsim.request import Request
from schedsim.scheduler.decode_set import DecodeSet
from schedsim.testing.allocator_checks import Failures, name_of, told
from schedsim.testing.allocator_engine import LENGTH, OUTPUT, PROMPT, REQUESTS, AllocatorEngine
from schedsim.testing.paper import VOCAB, Paper
from schedsim.traces.trace import PromptBlocks, Trace, TraceSource

Factory = Callable[[], KVCache] | Callable[[int, int, Content], KVCache]

_PICK = st.integers(0, REQUESTS - 1)
_TOKENS = st.integers(1, PROMPT)
_CHAIN: st.SearchStrategy[list[int]] = st.one_of(
    st.just([]), st.just([0] * PROMPT), st.lists(st.integers(0, 1), max_size=PROMPT)
)


class AllocatorMachine(AllocatorEngine):
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

        Raises:
            ConfigError: `factory` takes something else. What it makes is looked at when it runs,
                and raises the same where it is no memory manager.
        """
        _takes_sizes(factory)
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
        self._begin()

    @told
    def _begin(self) -> None:
        self._expect_key_error(self.waiting[0], "which holds nothing")

    def _make(self, blocks: int, block_size: int, content: Content) -> KVCache:
        make: Callable[..., KVCache] = type(self).factory
        takes_sizes = _takes_sizes(make)
        kv_cache = make(blocks, block_size, content) if takes_sizes else make()
        if not isinstance(kv_cache, KVCache):
            raise ConfigError(
                f"the factory makes a {type(kv_cache).__name__}, which is no "
                "schedsim.memory.KVCache; wrap an allocator in adapt(allocator, blocks, block_size)"
            )
        if kv_cache.has_prefix_cache and not takes_sizes:
            raise ConfigError(
                "the factory of a prefix cache takes (blocks, block_size, content): what it finds "
                "depends on the content of the machine's requests"
            )
        return kv_cache

    # ---- rules: planning an iteration

    @precondition(lambda self: len(self.waiting) > len(self.swapped))
    @rule(count=st.integers(1, REQUESTS), tokens=_TOKENS, spare=st.integers(0, 8))
    @told
    def admit(self, count: int, tokens: int, spare: int) -> None:
        """The first few of the line."""
        for request in [r for r in self.waiting if not r.is_swapped][:count]:
            self._admit(request, tokens, spare)

    @precondition(lambda self: self.swapped)
    @rule(pick=_PICK, tokens=_TOKENS, spare=st.integers(0, 8))
    @told
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
    @told
    def extend(self, pick: int, tokens: int) -> None:
        prefilling = self._prefilling()
        self._extend(prefilling[pick % len(prefilling)], tokens)

    @precondition(lambda self: self._decoding() and self.decodes is None)
    @rule()
    @told
    def decode_all(self) -> None:
        """The whole set at once, where all find room."""
        self._decode_all()

    @precondition(lambda self: self._decoding() and self.decodes is None)
    @rule(mask=st.integers(1, 2**REQUESTS - 1))
    @told
    def decode_some(self, mask: int) -> None:
        """One by one; who is not named, or finds no room, is held."""
        self._decode([r for r in self._decoding() if mask >> r.id & 1])

    @precondition(lambda self: self.running)
    @rule(pick=_PICK)
    @told
    def preempt(self, pick: int) -> None:
        self._preempt(self.running[pick % len(self.running)], swap=False)

    @precondition(lambda self: self.running and self.kv_cache.host_blocks)
    @rule(pick=_PICK)
    @told
    def swap_out(self, pick: int) -> None:
        self._preempt(self.running[pick % len(self.running)], swap=True)

    @precondition(lambda self: self.swapped)
    @rule(pick=_PICK)
    @told
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
    @told
    def run(self, gives_back: bool) -> None:
        """Book the iteration, write what it computes, read everything, take what finished."""
        self._run(gives_back)

    @precondition(lambda self: self.running)
    @rule(iterations=st.integers(1, 12))
    @told
    def serve(self, iterations: int) -> None:
        """Some iterations that run all they can."""
        for _ in range(iterations):
            if self._decoding() and self.decodes is None:
                self._decode_all()
            for request in self._prefilling():
                self._extend(request, LENGTH)
            self.books_hold()
            self._run(gives_back=True)

    @precondition(lambda self: self.padding)
    @rule(pick=_PICK)
    @told
    def give_back(self, pick: int) -> None:
        """A finished request that kept its blocks for a while."""
        self._give_back(self.padding[pick % len(self.padding)])


def _takes_sizes(factory: Callable[..., KVCache]) -> bool:
    needed = [
        parameter
        for parameter in inspect.signature(factory).parameters.values()
        if parameter.default is parameter.empty
        and parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD)
    ]
    if len(needed) not in (0, 3):
        raise ConfigError(
            f"the factory takes {len(needed)} arguments; it takes nothing, or all of (blocks, "
            "block_size, content)"
        )
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
