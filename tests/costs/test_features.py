"""Features: padding as the engine does it, and the same numbers from a shape and from steps."""

from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from schedsim.costs.features import (
    FEATURES,
    KINDS,
    UNPADDED,
    Padding,
    features_of,
    features_of_steps,
    kind_of,
)
from schedsim.scheduler.batch import BatchShape
from tests.costs.shapes import batch_shapes, shape_of

GRAPHS = Padding(decodes=[1, 2, 4, 8, 16], mixed=[32, 64, 128], chunks=[2, 2, 4])


@st.composite
def paddings(draw: st.DrawFn) -> Padding:
    """Small sizes, so that batches meet their ends, and large ones, with room for few chunks."""
    sizes = st.sets(st.integers(1, 12) | st.integers(1, 20_000), max_size=5).map(sorted)
    mixed = draw(sizes)
    rooms = st.lists(st.integers(1, 7), min_size=len(mixed), max_size=len(mixed)).map(sorted)
    attended = draw(st.integers(0, 1000))
    return Padding(decodes=draw(sizes), mixed=mixed, chunks=draw(rooms), attended=attended)


@pytest.mark.parametrize(
    ("chunks", "decodes", "tokens", "launched"),
    [
        ([], 1, 1, 0),
        ([], 3, 4, 0),
        ([], 9, 16, 0),
        ([], 17, 17, 0),  # more than there are seats: nobody pads that
        ([(5, 0)], 0, 32, 0),
        ([(5, 100)], 27, 32, 0),
        ([(5, 100)], 28, 64, 0),
        ([(64, 0), (64, 0)], 0, 128, 0),
        ([(64, 0), (65, 0)], 0, 129, 1),
        ([(1, 0), (1, 0)], 0, 32, 0),
        ([(1, 0)] * 3, 0, 128, 0),  # the smallest with room for three chunks
        ([(40, 0)] * 4, 0, 160, 1),
        ([(1, 0)] * 5, 0, 128, 1),  # no fewer tokens than with four
    ],
)
def test_batches_are_padded_to_the_sizes_that_are_captured(
    chunks: list[tuple[int, int]], decodes: int, tokens: int, launched: int
) -> None:
    found = features_of(shape_of(chunks, [10] * decodes), GRAPHS)
    assert (found.tokens, found.launched) == (tokens, launched)
    assert found.tiles == -(-tokens // 128)
    plain = features_of(shape_of(chunks, [10] * decodes), UNPADDED)
    assert (plain.tokens, plain.launched) == (sum(n for n, _ in chunks) + decodes, 0)


@pytest.mark.parametrize(
    ("chunks", "span"),
    [
        ([], 0),
        ([(3, 0)], 3),
        ([(3, 20), (5, 100)], 105),  # side by side
        ([(16, 100)], 16 * 108 / 8),  # in two turns
        ([(8, 0)] * 3, 3 * 8 * 4 / 8),  # in three, each as long as its mean query
    ],
)
def test_the_span_of_chunks_is_what_runs_one_after_the_other(
    chunks: list[tuple[int, int]], span: float
) -> None:
    shape = shape_of(chunks, [1000])
    assert features_of(shape, Padding(attended=8)).prefill_span == span
    assert features_of(shape, UNPADDED).prefill_span == 0


@given(batch_shapes(), paddings())
def test_no_feature_of_a_part_of_a_batch_is_larger(shape: BatchShape, padding: Padding) -> None:
    whole = features_of(shape, padding)
    parts = [
        _without(shape, name)
        for name in ("prefill_requests", "decode_requests", "padding_requests")
    ]
    if shape.prefill_requests > 1:
        parts.append(replace(shape, prefill_requests=shape.prefill_requests - 1))
    for less in parts:
        assert all(a <= b for a, b in zip(features_of(less, padding), whole, strict=True))


def _without(shape: BatchShape, group: str) -> BatchShape:
    """The batch without its chunks, its decodes or its padding."""
    prefix = group.removesuffix("requests")
    left = {f.name: getattr(shape, f.name) for f in fields(BatchShape)}
    left |= {name: type(left[name])(0) for name in left if name.startswith(prefix)}
    if group == "decode_requests":
        left["longest_context"] = 0
    return BatchShape(**left)


@given(st.lists(batch_shapes(), min_size=1, max_size=8), paddings())
def test_steps_have_the_features_of_their_shapes(
    shapes: list[BatchShape], padding: Padding
) -> None:
    def column(name: str) -> Any:
        if name == "context_tokens":
            return np.array([shape.decode_context - shape.decode_requests for shape in shapes])
        return np.array([getattr(shape, name) for shape in shapes])

    found = features_of_steps(column, padding)
    assert tuple(found) == FEATURES
    rows = np.column_stack(list(found.values())).tolist()
    assert rows == [[float(x) for x in features_of(shape, padding)] for shape in shapes]


@pytest.mark.parametrize(
    ("sizes", "said"),
    [
        ({"mixed": [4, 8], "chunks": [1]}, "as many chunks as mixed sizes"),
        ({"mixed": [4, 8], "chunks": [2, 1]}, "never fall"),
        ({"mixed": [4], "chunks": [0]}, "1 or more"),
        ({"mixed": [4, 4], "chunks": [1, 1]}, "sizes must ascend"),
        ({"chunks": [1]}, "as many chunks as mixed sizes"),
    ],
)
def test_sizes_that_no_engine_has_are_refused(sizes: dict[str, list[int]], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Padding(**sizes)


def test_kinds() -> None:
    shapes = [
        shape_of([(1, 0)]),
        shape_of([], [5]),
        shape_of([(1, 0)], [5]),
        BatchShape(swapped_blocks=1),
    ]
    assert [kind_of(shape) for shape in shapes] == list(KINDS)
    assert kind_of(shape_of([], [], [7])) == "decode"
