"""Scaling the lengths of a trace, so that its traffic fits a smaller model or a slower machine."""

import dataclasses
import math
from typing import Any

import numpy as np
import numpy.typing as npt

from schedsim.errors import ConfigError
from schedsim.traces.selection import take_blocks
from schedsim.traces.trace import MAX_TOKENS, PromptBlocks, TokenColumn, Trace

TOKEN_COLUMNS = ("prompt_tokens", "output_tokens", "max_output_tokens", "predicted_output")


def scale_tokens(trace: Trace, token_scale: float) -> Trace:
    """Multiply all lengths by `token_scale`, rounded up, at least 1: prompts, outputs, limits,
    predictions, and the block size of shared prefixes (rounded to the nearest).

    Where the block size does not come out whole, shared prefixes scale a little differently from
    the prompts; a note says so, and chains are cut to what their prompts have room for.

    Raises:
        ConfigError: `token_scale` is not a positive number, or makes a length beyond 2^31 - 1.
    """
    if not (math.isfinite(token_scale) and token_scale > 0):
        raise ConfigError(f"token scale {token_scale} must be a positive number")
    if token_scale == 1:
        return trace
    columns: dict[str, Any] = {}
    for name, column in trace.columns().items():
        if name in TOKEN_COLUMNS:
            scaled = _scaled(column, token_scale)
            if name != "predicted_output":
                _check_size(name, scaled, token_scale)
            columns[name] = scaled.astype(column.dtype)
    notes = [f"lengths scaled by {token_scale:g}"]
    blocks = trace.blocks
    if blocks is not None:
        size, exact = blocks.block_size, blocks.block_size * token_scale
        blocks = _scaled_blocks(blocks, columns["prompt_tokens"], max(1, round(exact)))
        if not math.isclose(exact, blocks.block_size):
            notes.append(
                f"blocks of shared prefixes, {size} tokens, became "
                f"{blocks.block_size} and not {exact:g}"
            )
    source = dataclasses.replace(trace.source, notes=(*trace.source.notes, *notes))
    return dataclasses.replace(trace, **columns, blocks=blocks, source=source)


def _scaled(column: npt.NDArray[Any], token_scale: float) -> npt.NDArray[np.float64]:
    """Lengths times the scale, rounded up; NaN stays.

    30 · 0.1 is 3 and a bit in floating point: taking off more than the rounding errors of the
    product keeps a whole number from becoming the next one.
    """
    return np.maximum(np.ceil(column * token_scale * (1 - 2.0**-50)), 1)


def _check_size(name: str, scaled: npt.NDArray[np.float64], token_scale: float) -> None:
    if scaled.max() > MAX_TOKENS:
        raise ConfigError(
            f"token scale {token_scale:g} makes {name} of row {int(scaled.argmax())} "
            f"{scaled.max():g} tokens long; at most {MAX_TOKENS} fit"
        )


def _scaled_blocks(blocks: PromptBlocks, prompt_tokens: TokenColumn, size: int) -> PromptBlocks:
    """The chains with blocks of `size` tokens, each cut to the blocks that its prompt has."""
    room = -(-prompt_tokens.astype(np.int64) // size)
    lengths = np.minimum(np.diff(blocks.offsets), room)
    cut = take_blocks(blocks, np.arange(len(prompt_tokens)), lengths)
    return dataclasses.replace(cut, block_size=size)
