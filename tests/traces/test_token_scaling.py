"""Scaled lengths: rounded up from the decimal that was written, and shared prefixes with them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.errors import ConfigError
from schedsim.traces import Trace
from schedsim.traces.token_scaling import scale_tokens
from schedsim.traces.trace import PromptBlocks, TraceSource
from tests.traces.strategies import traces


def prompts(*tokens: int, blocks: PromptBlocks | None = None) -> Trace:
    lengths = np.array(tokens, dtype=np.int32)
    return Trace(
        np.zeros(len(tokens)), lengths, lengths, TraceSource("small", "test"), blocks=blocks
    )


@given(trace=traces(), scale=st.floats(0.001, 1000))
def test_every_length_is_scaled_and_rounded_up(trace: Trace, scale: float) -> None:
    scaled = scale_tokens(trace, scale)  # its constructor checks every rule
    for name in ("prompt_tokens", "output_tokens", "predicted_output"):
        before, after = getattr(trace, name), getattr(scaled, name)
        if before is not None:
            known = ~np.isnan(before)
            np.testing.assert_array_equal(np.isnan(after), ~known)
            assert (after[known] >= np.maximum(before * scale, 1)[known] - 1e-6).all()
            assert (after[known] < np.maximum(before * scale, 1)[known] + 1).all()
    others = set(trace.columns()) - {"prompt_tokens", "output_tokens", "predicted_output"}
    for name in others:
        np.testing.assert_array_equal(scaled.columns()[name], trace.columns()[name])


@given(trace=traces(), scale=st.floats(0.001, 1000))
def test_what_prompts_share_they_share_afterwards(trace: Trace, scale: float) -> None:
    scaled = scale_tokens(trace, scale)
    if trace.blocks is None:
        assert scaled.blocks is None
        return
    assert scaled.blocks is not None
    assert scaled.blocks.block_size == max(1, round(trace.blocks.block_size * scale))
    for row in range(len(trace)):
        before = trace.blocks.ids[slice(*trace.blocks.offsets[row : row + 2])]
        after = scaled.blocks.ids[slice(*scaled.blocks.offsets[row : row + 2])]
        np.testing.assert_array_equal(after, before[: len(after)])


@given(st.integers(1, 99), st.integers(1, 1000))
def test_a_scale_in_per_cent_is_exact(percent: int, hundreds: int) -> None:
    scaled = scale_tokens(prompts(100 * hundreds), percent / 100)
    assert scaled.prompt_tokens.tolist() == [percent * hundreds]


def test_a_block_size_that_rounds_is_noted() -> None:
    chains = PromptBlocks(512, np.array([0, 2]), np.array([7, 8]))
    assert scale_tokens(prompts(1024, blocks=chains), 0.25).source.notes == (
        "lengths scaled by 0.25",
    )
    rounded = scale_tokens(prompts(1024, blocks=chains), 0.02)
    assert rounded.source.notes[1] == (
        "blocks of shared prefixes, 512 tokens, became 10 and not 10.24"
    )


def test_a_scale_of_one_changes_nothing() -> None:
    trace = prompts(10, 20)
    assert scale_tokens(trace, 1.0) is trace


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan"), float("inf")])
def test_a_scale_that_is_no_positive_number_is_refused(scale: float) -> None:
    with pytest.raises(ConfigError, match="must be a positive number"):
        scale_tokens(prompts(10), scale)


def test_a_length_that_does_not_fit_names_the_row() -> None:
    with pytest.raises(ConfigError, match="row 1"):
        scale_tokens(prompts(10, 20), 1e9)
    with pytest.raises(ConfigError, match=r"row 1 2e\+301 tokens long"):
        scale_tokens(prompts(10, 20), 1e300)
