"""Output limits: what policies see as max_tokens, and where an output ends because of it."""

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.errors import ConfigError
from schedsim.output_limit import default_form, limit_outputs
from schedsim.traces.trace import Trace, TraceSource


def trace(
    prompts: Sequence[int], outputs: Sequence[int], column: Sequence[int] | None = None
) -> Trace:
    count = len(prompts)
    return Trace(
        np.zeros(count),
        np.array(prompts, dtype=np.int32),
        np.array(outputs, dtype=np.int32),
        TraceSource("lengths", "test", rows_read=count),
        max_output_tokens=None if column is None else np.array(column, dtype=np.int32),
    )


PROMPTS, OUTPUTS, COLUMN = [10, 50, 99], [5, 60, 1], [8, 30, 4]


@pytest.mark.parametrize(
    ("text", "limits", "tokens"),
    [
        ("context", [90, 50, 1], [5, 60, 1]),
        ("column", [8, 30, 1], [5, 30, 1]),
        ("const:20", [20, 20, 1], [5, 20, 1]),
        ("const:2000", [90, 50, 1], [5, 60, 1]),
        ("factor:1", [5, 50, 1], [5, 60, 1]),
        ("factor:1.5", [8, 50, 1], [5, 60, 1]),
        ("factor:0.5", [3, 30, 1], [3, 30, 1]),
    ],
)
def test_every_form_by_hand(text: str, limits: list[int], tokens: list[int]) -> None:
    outputs = limit_outputs(trace(PROMPTS, OUTPUTS, COLUMN), text, 100)
    assert outputs.limits.tolist() == limits
    assert outputs.tokens.tolist() == tokens
    assert outputs.limits.dtype == outputs.tokens.dtype == np.int32


def test_without_a_column_the_limit_is_the_context() -> None:
    assert limit_outputs(trace([10], [5]), default_form(trace([10], [5])), 100).limits.tolist() == [
        90
    ]


@given(
    lengths=st.lists(st.tuples(*[st.integers(1, 2**31 - 1)] * 3), min_size=1, max_size=8),
    text=st.sampled_from(["context", "column", "const:1", "const:4096", "factor:0.1", "factor:3"]),
    context=st.integers(2, 2**31 - 1),
)
def test_limits_are_positive_and_end_outputs_that_fit_the_context(
    lengths: list[tuple[int, int, int]], text: str, context: int
) -> None:
    prompts, outputs, column = zip(*lengths, strict=True)
    limits, tokens = limit_outputs(trace(prompts, outputs, column), text, context)
    columns = (prompts, outputs, limits.tolist(), tokens.tolist())
    for prompt, output, limit, emitted in zip(*columns, strict=True):
        assert 1 <= limit <= max(1, context - prompt)
        assert 1 <= emitted <= output
        assert emitted <= limit or prompt + emitted > context, "a request that will be rejected"


@pytest.mark.parametrize(
    "text",
    [
        "const",
        "const:",
        "const:0",
        "const:-4",
        "const:many",
        "const:nan",
        "const:0.5",
        "const:20.5",
        "const:inf",
        "factor:0",
        "factor",
        "factor:inf",
        "context:5",
        "column:5",
        "const:5,extra=1",
        "colum",
        "true",
    ],
)
def test_a_wrong_form_says_what_to_write(text: str) -> None:
    with pytest.raises(ConfigError, match="--max-output"):
        limit_outputs(trace(PROMPTS, OUTPUTS, COLUMN), text, 100)


def test_column_needs_the_column() -> None:
    with pytest.raises(ConfigError, match="no max_output_tokens column"):
        limit_outputs(trace([1], [1]), "column", 100)
