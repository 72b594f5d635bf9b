"""`Content`: what the tokens of every request are, from the trace alone; no texts, no clock."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import numpy.typing as npt

from schedsim.output_limit import Outputs
from schedsim.traces.trace import IntColumn, PromptBlocks, Trace

Words = npt.NDArray[np.uint64]


@dataclass(frozen=True, slots=True, eq=False)
class Content:
    """The token sequence, prompt then output, of each request of a trace.

    The tokens of a request are, from the left:

    - where the trace has a block chain for it: the chain's tokens, as far as the chain and the
      prompt reach. Two requests have them in common as far as their chains are equal from the
      start; an id that both use after they differed stands for different tokens;
    - else, where it has a parent whose prompt and emitted output are together not longer than its
      prompt: that prompt and that output, so a follow-up begins with the whole conversation. A
      shorter prompt (one that was compacted or begun anew) has nothing of it;
    - then tokens that no other request has, except those that begin with it as its follow-ups.

    So an output is found again only by a follow-up without a chain of its own. Built in
    O(n log n) for n block ids; memory is one number a block id and a few a request.
    """

    _stride: int
    _block_size: int
    _offsets: IntColumn
    _nodes: IntColumn
    _chained: list[int]
    _parents: list[int]
    _inherited: list[int]

    @classmethod
    def of(cls, trace: Trace, outputs: Outputs) -> "Content":
        """The content of `trace` whose requests emit `outputs.tokens` tokens."""
        rows = len(trace)
        prompts = trace.prompt_tokens.astype(np.int64)
        blocks = trace.blocks
        if blocks is None:
            none = np.zeros(0, dtype=np.int64)
            blocks = PromptBlocks(1, np.zeros(rows + 1, dtype=np.int64), none)
        chained = np.minimum(np.diff(blocks.offsets) * blocks.block_size, prompts)
        parents, inherited = _conversations(trace, outputs)
        return cls(
            _stride=int((prompts + outputs.tokens).max()),
            _block_size=blocks.block_size,
            _offsets=blocks.offsets,
            _nodes=prefix_numbers(blocks),
            _chained=chained.tolist(),
            _parents=parents.tolist(),
            _inherited=inherited.tolist(),
        )

    def token_ids(
        self, request_id: int, start: int, stop: int, vocab: int
    ) -> npt.NDArray[np.int64]:
        """The tokens [start, stop) of prompt and output as ids in [0, vocab).

        A pure function of where a token comes from and its place: equal content has equal ids, and
        content that differs has other ones but for chance. O(tokens + ancestors).
        """
        parts: list[npt.NDArray[np.int64]] = []
        end = max(start, stop)
        while True:
            shared = self._chained[request_id] or self._inherited[request_id]
            if end > shared:
                places = np.arange(max(start, shared), end, dtype=np.uint64)
                parts.append(_hash_tokens(2 * request_id + 1, places, vocab))
                end = max(start, shared)
            if end <= start:
                break
            if self._chained[request_id]:
                parts.append(self._chain_tokens(request_id, start, end, vocab))
                break
            request_id = self._parents[request_id]
        parts.reverse()
        return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)

    def block_key(self, request_id: int, index: int, block_size: int) -> int:
        """A number that says what the first `(index + 1) · block_size` tokens are.

        For one block size, two keys are equal if and only if these tokens are; keys are computed,
        not remembered.
        """
        shared = self._chained[request_id] or self._inherited[request_id]
        if index >= shared // block_size:
            return request_id * self._stride + index
        return self.block_keys(request_id, index, index + 1, block_size)[0]

    def block_keys(self, request_id: int, first: int, last: int, block_size: int) -> Sequence[int]:
        """`block_key` of the blocks [first, last); O(blocks + ancestors)."""
        parts: list[Sequence[int]] = []
        while True:
            chained = self._chained[request_id]
            # The blocks from `whole` on end in tokens of the request's own.
            whole = (chained or self._inherited[request_id]) // block_size
            if last > whole:
                begin = max(first, whole)
                base = request_id * self._stride
                parts.append(range(base + begin, base + last))
                last = begin
            if last <= first:
                break
            if chained:
                parts.append(self._chain_keys(request_id, first, last, block_size))
                break
            request_id = self._parents[request_id]
        if len(parts) == 1:
            return parts[0]
        return list(chain.from_iterable(reversed(parts)))

    def _chain_tokens(
        self, request_id: int, start: int, end: int, vocab: int
    ) -> npt.NDArray[np.int64]:
        size = self._block_size
        places = np.arange(start, end, dtype=np.int64)
        nodes = self._nodes[self._offsets[request_id] + places // size]
        return _hash_tokens(2 * nodes, places.astype(np.uint64), vocab)

    def _chain_keys(self, request_id: int, first: int, last: int, block_size: int) -> Sequence[int]:
        """The block of the chain that a block ends in, and where in it: below zero."""
        size, offset = self._block_size, int(self._offsets[request_id])
        if last - first == 1:  # numpy would cost ten times as much
            end = last * block_size - 1
            return (-1 - int(self._nodes[offset + end // size]) * size - end % size,)
        ends = np.arange(first + 1, last + 1) * block_size - 1
        keys: list[int] = (-1 - self._nodes[offset + ends // size] * size - ends % size).tolist()
        return keys


def shares_prefixes(trace: Trace, outputs: Outputs) -> bool:
    """Whether a prompt of the trace may begin with tokens of another request."""
    has_chains = trace.blocks is not None and len(trace.blocks.ids) > 0
    return has_chains or bool(_conversations(trace, outputs)[1].any())


def _conversations(trace: Trace, outputs: Outputs) -> tuple[IntColumn, IntColumn]:
    """For each request the parent whose conversation it begins with, and its tokens; or -1, 0."""
    rows = len(trace)
    if trace.parent is None:
        return np.full(rows, -1, dtype=np.int64), np.zeros(rows, dtype=np.int64)
    begins = trace.parent >= 0
    if trace.blocks is not None:
        begins &= np.diff(trace.blocks.offsets) == 0
    said = trace.prompt_tokens.astype(np.int64) + outputs.tokens
    said = said[trace.parent]  # of no meaning where there is no parent
    begins &= said <= trace.prompt_tokens
    return np.where(begins, trace.parent, -1), np.where(begins, said, 0)


def prefix_numbers(blocks: PromptBlocks) -> IntColumn:
    """For every block id a number of the chain that ends with it: equal for equal chains only.

    By doubling: what is known to be equal over the last 2^k ids is compared with what is known of
    the 2^k before these, until nothing new comes out. Ids that are hashes of their whole prefix,
    as in most traces, are found to be so in the first round, which only reads.
    """
    numbers = _dense(blocks.ids)
    depth = np.arange(len(numbers)) - np.repeat(blocks.offsets[:-1], np.diff(blocks.offsets))
    step = 1
    while True:
        before = np.full(len(numbers), -1, dtype=np.int64)
        before[step:] = np.where(depth[step:] >= step, numbers[:-step], -1)
        seen = np.empty(int(numbers.max(initial=-1)) + 1, dtype=np.int64)
        seen[numbers] = before
        if np.array_equal(seen[numbers], before):
            return numbers
        pairs = numbers * (len(seen) + 1) + before + 1
        numbers = np.unique(pairs, return_inverse=True)[1].astype(np.int64, copy=False)
        step *= 2


def _dense(ids: IntColumn) -> IntColumn:
    """The ids as numbers from 0 that do not exceed a few times their count."""
    if len(ids) and ids.min() >= 0 and ids.max() < 4 * len(ids):
        return ids
    return np.unique(ids, return_inverse=True)[1].astype(np.int64, copy=False)


def _hash_tokens(source: int | IntColumn, places: Words, vocab: int) -> npt.NDArray[np.int64]:
    """Ids below `vocab` from where a token comes from and its place there."""
    words = _mix(_mix(np.atleast_1d(np.asarray(source, dtype=np.int64)).astype(np.uint64)) ^ places)
    return (words % np.uint64(vocab)).astype(np.int64)


def _mix(words: Words) -> Words:
    """splitmix64 (Steele, Lea and Flood, OOPSLA 2014), whose output is a bijection of its input."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
