"""The loads of a design: what their requests get, and how they are batched."""

from collections.abc import Iterator

import hypothesis
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.experiments.design import Turn
from schedsim.experiments.design_loads import (
    LOAD_TOKENS,
    LOAD_TURNS,
    LOADS,
    OUTPUTS,
    PROMPTS,
    TURNS_OF_A_SEAT,
    Load,
    LoadWriter,
    Room,
)

FEW = max(1, hypothesis.settings.default.max_examples // 4)


def held(prompt: int, output: int) -> int:
    return -(-(prompt + output) // 16) * 16


class Written:
    """A load as it was written, and its requests: (prompt, output) by their place."""

    def __init__(self, load: Load, prompts: tuple[int, int], seed: int = 0, **sizes: int) -> None:
        self.requests: list[tuple[int, int]] = []
        chosen = {"budget": 57344, "seats": 256, "slots": 300_000, "prompt": 7600, "output": 512}
        room = Room(**(chosen | sizes), held=held)
        rng = np.random.default_rng(seed)
        self.turns = LoadWriter(load, prompts, room, self._request, rng).turns()

    def _request(self, prompt: int, output: int) -> int:
        self.requests.append((prompt, output))
        return len(self.requests) - 1

    def decoding(self) -> Iterator[tuple[Turn, set[int]]]:
        """Every iteration with those whose prompts are in the cache before it."""
        left = [prompt for prompt, _ in self.requests]
        ready: set[int] = set()
        for turn in self.turns:
            ready -= set(turn.leave)
            yield turn, set(ready)
            for request, tokens in turn.chunks:
                left[request] -= tokens
                assert left[request] >= 0
                if not left[request]:
                    ready.add(request)


SIZES = {"budget": st.integers(1, 4096), "outputs": st.just(OUTPUTS)}
loads = st.builds(
    Load, **SIZES, every=st.sampled_from([None, 1, 7]), group=st.none(), whole=st.just(False)
) | st.builds(
    Load, **SIZES, every=st.none(), group=st.sampled_from([None, 1, 5]), whole=st.just(True)
)
rooms = st.fixed_dictionaries(
    {
        "budget": st.integers(1, 5000),
        "seats": st.integers(1, 40),
        "slots": st.integers(2000, 20_000),
        "prompt": st.integers(1, 1500),
        "output": st.integers(1, 400),
    }
)


@hypothesis.settings(max_examples=FEW)
@given(loads, st.sampled_from(PROMPTS), st.integers(0, 99), rooms)
def test_requests_get_what_they_came_for(
    load: Load, prompts: tuple[int, int], seed: int, sizes: dict[str, int]
) -> None:
    """Each is computed once and whole, decodes as often as it is to, and leaves right then."""
    written = Written(load, prompts, seed, **sizes)
    budget = min(load.budget, sizes["budget"])
    assert written.turns
    decodes = [0] * len(written.requests)
    for turn, ready in written.decoding():
        assert turn.chunks or (turn.decodes and ready)
        tokens = sum(tokens for _, tokens in turn.chunks) + (len(ready) if turn.decodes else 0)
        assert tokens <= budget
        if load.whole and turn.chunks:
            assert not turn.decodes
            assert all(tokens == written.requests[request][0] for request, tokens in turn.chunks)
        there = ready | {request for request, _ in turn.chunks}
        assert len(there) <= sizes["seats"]
        assert sum(held(*written.requests[request]) for request in there) <= sizes["slots"]
        for request in turn.leave:
            assert decodes[request] == written.requests[request][1]
        if turn.decodes:
            for request in ready:
                decodes[request] += 1
    assert all(made <= output for made, (_, output) in zip(decodes, written.requests, strict=True))


@pytest.mark.parametrize("load", LOADS)
@pytest.mark.parametrize("prompts", PROMPTS)
def test_a_load_runs_for_a_while_with_lengths_of_its_own(
    load: Load, prompts: tuple[int, int]
) -> None:
    written = Written(load, prompts)
    tokens = sum(tokens for turn in written.turns for _, tokens in turn.chunks)
    assert len(written.turns) == LOAD_TURNS or LOAD_TOKENS <= tokens < LOAD_TOKENS + 65536
    for prompt, output in written.requests:
        assert prompts[0] <= prompt <= prompts[1]
        assert load.outputs[0] <= output <= load.outputs[1]
    drawn = [prompt for prompt, _ in written.requests]
    assert abs(np.mean(np.log(drawn)) - np.mean(np.log(prompts))) < 0.4


def test_an_engine_with_few_seats_has_shorter_loads() -> None:
    assert len(Written(Load(2048, every=24), PROMPTS[0], seats=4).turns) == 4 * TURNS_OF_A_SEAT
    few = Written(Load(2048, outputs=(1, 1)), PROMPTS[1], seats=4, prompt=500)
    assert 2000 <= sum(tokens for turn in few.turns for _, tokens in turn.chunks) < 4100


def test_chunks_count_and_one_in_eight_of_the_decodes_alone() -> None:
    turns = Written(Load(2048, every=24), PROMPTS[1]).turns
    for number, turn in enumerate(turns):
        assert turn.counts == (bool(turn.chunks) or number % 8 == 0)
    assert any(turn.counts for turn in turns if not turn.chunks)


@pytest.mark.parametrize("budget", [512, 2048])
def test_with_a_queue_the_budget_is_filled(budget: int) -> None:
    written = Written(Load(budget), PROMPTS[1])
    sizes = [
        (sum(tokens for _, tokens in turn.chunks), len(ready))
        for turn, ready in written.decoding()
        if turn.decodes
    ]
    assert len(sizes) > 60
    assert np.mean([chunks + decodes == budget for chunks, decodes in sizes]) > 0.95
    assert max(decodes for _, decodes in sizes) > 32


def test_under_a_light_load_few_decode_and_chunks_are_rare() -> None:
    written = Written(Load(2048, every=24), PROMPTS[0])
    running = [len(ready) for turn, ready in written.decoding()]
    assert max(running) < 16
    assert np.mean([bool(turn.chunks) for turn in written.turns]) < 0.1


def test_whole_prompts_run_alone_between_decodes() -> None:
    written = Written(Load(16384, whole=True, every=6), PROMPTS[2])
    chunks = [chunk for turn in written.turns for chunk in turn.chunks]
    assert len(written.turns) > 2 * len(chunks), "most iterations decode"


def test_whole_prompts_with_a_queue_fill_the_budget_as_far_as_they_fit() -> None:
    written = Written(Load(4096, whole=True), PROMPTS[0])
    first = sum(tokens for _, tokens in written.turns[0].chunks)
    assert 4096 - PROMPTS[0][1] < first <= 4096


def test_beside_whole_prompts_as_many_decode_as_the_budget_has_tokens() -> None:
    written = Written(Load(64, whole=True), PROMPTS[0])
    assert max(len(ready) for _, ready in written.decoding()) == 64


@pytest.mark.parametrize("slots", [300_000, 12_000])
def test_a_group_begins_and_leaves_together(slots: int) -> None:
    """Also a smaller one, of as many as there are slots for."""
    written = Written(Load(65536, whole=True, group=16), PROMPTS[1], slots=slots)
    leaving = [turn.leave for turn in written.turns if turn.leave]
    assert all(turn.chunks for turn in written.turns if turn.leave), "the next group begins"
    outputs = [{written.requests[member][1] for member in members} for members in leaving]
    assert all(len(given) == 1 for given in outputs)
    assert len(set.union(*outputs)) > 1, "each group has its own"
    assert {len(members) for members in leaving} == {16} or slots == 12_000
    for turn, ready in written.decoding():
        assert not (turn.chunks and ready)
