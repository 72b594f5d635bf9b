"""What the tokens of a trace are: equal where the trace declares them equal, and nowhere else."""

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from schedsim.content import Content, prefix_numbers, shares_prefixes
from schedsim.output_limit import Outputs
from schedsim.traces.trace import PromptBlocks, Trace, TraceSource

VOCAB = 2**62


def content_of(
    prompts: list[int],
    outputs: list[int],
    *,
    chains: list[list[int]] | None = None,
    size: int = 1,
    parents: list[int] | None = None,
) -> Content:
    trace = trace_of(prompts, outputs, chains=chains, size=size, parents=parents)
    return Content.of(trace, Outputs(trace.output_tokens, trace.output_tokens))


def trace_of(
    prompts: list[int],
    outputs: list[int],
    *,
    chains: list[list[int]] | None = None,
    size: int = 1,
    parents: list[int] | None = None,
) -> Trace:
    return Trace(
        np.zeros(len(prompts)),
        np.array(prompts, dtype=np.int32),
        np.array(outputs, dtype=np.int32),
        TraceSource("content", "test", rows_read=len(prompts)),
        parent=None if parents is None else np.array(parents, dtype=np.int64),
        think_s=None if parents is None else np.zeros(len(prompts)),
        blocks=None if chains is None else blocks_of(chains, size),
    )


def blocks_of(chains: list[list[int]], size: int) -> PromptBlocks:
    offsets = np.concatenate([[0], np.cumsum([len(chain) for chain in chains])]).astype(np.int64)
    ids = [number for chain in chains for number in chain]
    return PromptBlocks(size, offsets, np.array(ids, dtype=np.int64))


def tokens_of(content: Content, request: int, stop: int, vocab: int = VOCAB) -> list[int]:
    return content.token_ids(request, 0, stop, vocab).tolist()


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[int], list[int], list[list[int]], int, list[int]]:
    """Prompts, outputs, chains (empty: none), their block size and parents."""
    count = draw(st.integers(1, 8))
    size = draw(st.integers(1, 5))
    prompts, outputs, chains, parents = [], [], [], []
    for row in range(count):
        parent = draw(st.integers(-1, row - 1))
        output = draw(st.integers(1, 12))
        if parent >= 0 and draw(st.booleans()):
            prompt = prompts[parent] + outputs[parent] + draw(st.integers(-1, 4))
        else:
            prompt = draw(st.integers(1, 25))
        chain: list[int] = []
        if draw(st.booleans()):
            ids = st.integers(0, 2)
            chain = draw(st.lists(ids, max_size=-(-prompt // size)))
        prompts.append(max(prompt, 1))
        outputs.append(output)
        chains.append(chain)
        parents.append(parent)
    return prompts, outputs, chains, size, parents


@given(cases(), st.integers(1, 6))
def test_keys_are_equal_exactly_where_the_tokens_up_to_there_are(
    case: tuple[list[int], list[int], list[list[int]], int, list[int]], block_size: int
) -> None:
    prompts, outputs, chains, size, parents = case
    content = content_of(prompts, outputs, chains=chains, size=size, parents=parents)
    prefix_of: dict[int, tuple[int, ...]] = {}
    for request, total in enumerate(map(sum, zip(prompts, outputs, strict=True))):
        tokens = tokens_of(content, request, total)
        assert len(tokens) == total
        for index in range(total // block_size):
            prefix = tuple(tokens[: (index + 1) * block_size])
            key = content.block_key(request, index, block_size)
            assert prefix_of.setdefault(key, prefix) == prefix
    assert len(set(prefix_of.values())) == len(prefix_of), "equal tokens under two keys"


@given(cases())
def test_tokens_are_the_chains_then_the_parents_then_the_requests_own(
    case: tuple[list[int], list[int], list[list[int]], int, list[int]],
) -> None:
    """Against the rule written down token by token."""
    prompts, outputs, chains, size, parents = case
    content = content_of(prompts, outputs, chains=chains, size=size, parents=parents)
    declared: list[list[object]] = []
    for row, (prompt, output, chain, parent) in enumerate(
        zip(prompts, outputs, chains, parents, strict=True)
    ):
        begin: list[object] = []
        if chain:
            spelt = [(tuple(chain[: i + 1]), k) for i in range(len(chain)) for k in range(size)]
            begin += spelt[:prompt]
        elif parent >= 0 and len(declared[parent]) <= prompt:
            begin += declared[parent]
        declared.append(begin + [(row, place) for place in range(len(begin), prompt + output)])
    number_of: dict[object, int] = {}
    for row, sources in enumerate(declared):
        for source, token in zip(sources, tokens_of(content, row, len(sources)), strict=True):
            assert number_of.setdefault(source, token) == token
    assert len(set(number_of.values())) == len(number_of)


@given(cases(), st.data())
def test_pieces_of_tokens_and_keys_are_pieces_of_the_whole(
    case: tuple[list[int], list[int], list[list[int]], int, list[int]], data: st.DataObject
) -> None:
    prompts, outputs, chains, size, parents = case
    content = content_of(prompts, outputs, chains=chains, size=size, parents=parents)
    request = data.draw(st.integers(0, len(prompts) - 1))
    total = prompts[request] + outputs[request]
    start, stop = sorted(data.draw(st.tuples(st.integers(0, total), st.integers(0, total))))
    whole = tokens_of(content, request, total, 1000)
    assert all(0 <= token < 1000 for token in whole)
    assert content.token_ids(request, start, stop, 1000).tolist() == whole[start:stop]
    keys = [content.block_key(request, index, 1) for index in range(total)]
    assert list(content.block_keys(request, start, stop, 1)) == keys[start:stop]


@given(st.lists(st.lists(st.integers(-3, 3), max_size=9), max_size=9))
@example([[5, 7], [6, 7], [5, 7, 7, 7], [7, 7, 7]])
@example([[10**18, 1], [10**18, 2], [1, 2]])
def test_chains_have_equal_numbers_exactly_where_they_are_equal(chains: list[list[int]]) -> None:
    numbers = prefix_numbers(blocks_of(chains, 1)).tolist()
    prefixes = [tuple(chain[: i + 1]) for chain in chains for i in range(len(chain))]
    pairs = set(zip(numbers, prefixes, strict=True))
    assert len(pairs) == len(set(numbers)) == len(set(prefixes))


def test_a_follow_up_begins_with_the_whole_conversation() -> None:
    content = content_of([5, 9, 13], [3, 2, 1], parents=[-1, 0, 1])
    first, second = tokens_of(content, 0, 8), tokens_of(content, 1, 11)
    assert second[:8] == first
    assert tokens_of(content, 2, 14)[:11] == second


def test_a_prompt_shorter_than_the_conversation_has_nothing_of_it() -> None:
    content = content_of([5, 7], [3, 2], parents=[-1, 0])
    assert not set(tokens_of(content, 0, 8)) & set(tokens_of(content, 1, 9))


def test_a_chain_goes_before_a_parent() -> None:
    content = content_of([4, 8], [2, 1], chains=[[1, 2], [1, 3]], size=2, parents=[-1, 0])
    first, second = tokens_of(content, 0, 6), tokens_of(content, 1, 9)
    assert second[:2] == first[:2]
    assert not set(first) & set(second[2:])


def test_an_output_that_is_cut_gives_a_follow_up_what_was_emitted() -> None:
    trace = Trace(
        np.zeros(2),
        np.array([4, 7], dtype=np.int32),
        np.array([9, 1], dtype=np.int32),
        TraceSource("cut", "test", rows_read=2),
        parent=np.array([-1, 0]),
        think_s=np.zeros(2),
    )
    cut = np.array([2, 1], dtype=np.int32)
    content = Content.of(trace, Outputs(cut, cut))
    assert tokens_of(content, 1, 6) == tokens_of(content, 0, 6)
    assert tokens_of(content, 1, 7)[6] != tokens_of(content, 0, 7)[6]


def test_a_long_conversation_costs_no_recursion() -> None:
    turns = 3000
    prompts = [1 + 3 * turn for turn in range(turns)]
    content = content_of(prompts, [2] * turns, parents=list(range(-1, turns - 1)))
    last = tokens_of(content, turns - 1, prompts[-1])
    assert len(set(last)) == prompts[-1]
    assert last[:3] == tokens_of(content, 0, 3)
    assert content.block_key(turns - 1, 0, 3) == content.block_key(0, 0, 3)


@pytest.mark.parametrize("vocab", [1, 2, 32_000, 2**62])
def test_ids_are_int64_below_the_vocabulary(vocab: int) -> None:
    ids = content_of([40], [3]).token_ids(0, 0, 43, vocab)
    assert ids.dtype == np.int64
    assert ((ids >= 0) & (ids < vocab)).all()
    assert content_of([40], [3]).token_ids(0, 5, 5, vocab).shape == (0,)


@pytest.mark.parametrize(
    ("chains", "parents", "shares"),
    [
        (None, None, False),
        (None, [-1, 0], True),
        ([[], []], [-1, 0], True),
        ([[], [1]], None, True),
        ([[], []], None, False),
    ],
)
def test_it_is_known_whether_a_trace_shares_prefixes(
    chains: list[list[int]] | None, parents: list[int] | None, shares: bool
) -> None:
    trace = trace_of([5, 9], [3, 2], chains=chains, parents=parents)
    assert shares_prefixes(trace, Outputs(trace.output_tokens, trace.output_tokens)) == shares
    shorter = trace_of([5, 7], [3, 2], parents=[-1, 0])
    assert not shares_prefixes(shorter, Outputs(shorter.output_tokens, shorter.output_tokens))
