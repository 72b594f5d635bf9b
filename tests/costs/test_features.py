"""Features: padding as the engine does it, and the same numbers from a shape and from steps."""

from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

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

GRAPHS = Padding(decodes=[1, 2, 4, 8, 16], mixed=[32, 64, 128], max_chunks=2)
paddings = st.sampled_from([UNPADDED, GRAPHS])


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
        ([(1, 0), (1, 0), (1, 0)], 0, 32, 1),
    ],
)
def test_tokens_are_padded_to_the_sizes_that_are_captured(
    chunks: list[tuple[int, int]], decodes: int, tokens: int, launched: int
) -> None:
    found = features_of(shape_of(chunks, [10] * decodes), GRAPHS)
    assert (found.tokens, found.launched) == (tokens, launched)
    assert found.tiles == -(-tokens // 128)
    plain = features_of(shape_of(chunks, [10] * decodes), UNPADDED)
    assert (plain.tokens, plain.launched) == (sum(n for n, _ in chunks) + decodes, 0)


@given(batch_shapes(), paddings)
def test_no_feature_of_a_part_of_a_batch_is_larger(shape: BatchShape, padding: Padding) -> None:
    whole = features_of(shape, padding)
    for name in ("prefill_requests", "decode_requests", "padding_requests"):
        less = _without(shape, name)
        assert all(a <= b for a, b in zip(features_of(less, padding), whole, strict=True))


def _without(shape: BatchShape, group: str) -> BatchShape:
    """The batch without its chunks, its decodes or its padding."""
    prefix = group.removesuffix("requests")
    left = {f.name: getattr(shape, f.name) for f in fields(BatchShape)}
    left |= {name: type(left[name])(0) for name in left if name.startswith(prefix)}
    if group == "decode_requests":
        left["longest_context"] = 0
    return BatchShape(**left)


@given(st.lists(batch_shapes(), min_size=1, max_size=8), paddings)
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


def test_kinds() -> None:
    shapes = [
        shape_of([(1, 0)]),
        shape_of([], [5]),
        shape_of([(1, 0)], [5]),
        BatchShape(swapped_blocks=1),
    ]
    assert [kind_of(shape) for shape in shapes] == list(KINDS)
    assert kind_of(shape_of([], [], [7])) == "decode"
