"""What of a batch costs time: `FEATURES`, of one batch shape or of all steps of a run."""

from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, model_validator

from schedsim.scheduler.batch import BatchShape

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

GROWING = ("decode_context", "longest_context")
"""The features that are different in each of several iterations that only decode."""

HEATED = (
    "tokens",
    "tiles",
    "prefill_requests",
    "prefill_tokens",
    "prefill_context",
    "prefill_attention",
)
"""The features whose time is arithmetic, which a lower clock makes longer."""

TILE = 128
"""Tokens that products on a GPU are computed in: one more begins a tile, and so may take longer by
a whole one."""

KINDS = ("prefill", "decode", "mixed", "copies")
"""Batches of chunks alone, of decodes alone, of both, and those that only swap or move blocks."""


class Features(NamedTuple):
    """The counts of a batch that its duration depends on; none falls when a batch gets larger.

    `tokens` run through the model, those included that pad the batch to a size which the engine has
    captured; `tiles` are these in whole tiles of `TILE`; `launched` is 1 for a batch with chunks
    that is too large to be captured; `mixed_context` is `decode_context` where there are chunks,
    too, and 0 elsewhere: kernels may read it otherwise. The others are those of `BatchShape`;
    decodes include the padding of a static batch, which costs what decodes cost, except in
    `longest_context`.
    """

    tokens: int
    tiles: int
    launched: int
    decode_requests: int
    prefill_requests: int
    prefill_tokens: int
    prefill_context: int
    prefill_attention: float
    sampled: int
    swapped_blocks: int
    copied_blocks: int
    mixed_context: int
    decode_context: int
    longest_context: int


FEATURES = Features._fields
"""In the order in which what they cost is added up; those of `GROWING` are the last."""


class Padding(BaseModel):
    """The sizes to which an engine pads its batches, because it captured these (CUDA graphs).

    Batches of decodes alone have one of the sizes `decodes`; those with up to `max_chunks` prefill
    chunks have in all one of the sizes `mixed`. Both ascend. Larger batches are not padded.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    decodes: list[int] = Field(default_factory=list)
    mixed: list[int] = Field(default_factory=list)
    max_chunks: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _ascends(self) -> "Padding":
        for sizes in (self.decodes, self.mixed):
            if any(low >= high for low, high in pairwise([0, *sizes])):
                raise ValueError("sizes must ascend from 1")
        return self


UNPADDED = Padding()


def features_of(shape: BatchShape, padding: Padding) -> Features:
    """The features of one batch."""
    decodes = shape.decode_requests + shape.padding_requests
    tokens = decodes
    launched = 0
    if decodes:
        tokens = _padded(padding.decodes, decodes)
    if shape.prefill_tokens:
        together = decodes + shape.prefill_tokens
        tokens = max(tokens, _padded(padding.mixed, together))
        if padding.mixed:
            launched = int(
                together > padding.mixed[-1] or shape.prefill_requests > padding.max_chunks
            )
    context = shape.decode_context + shape.padding_context
    return Features(
        tokens,
        -(-tokens // TILE),
        launched,
        decodes,
        shape.prefill_requests,
        shape.prefill_tokens,
        shape.prefill_context,
        shape.prefill_attention,
        shape.sampled,
        shape.swapped_blocks,
        shape.copied_blocks,
        context if shape.prefill_tokens else 0,
        context,
        shape.longest_context,
    )


def tokens_of(shape: BatchShape) -> int:
    """The tokens of a batch that an engine is asked for, those of padding members included."""
    return shape.prefill_tokens + shape.decode_requests + shape.padding_requests


def kind_of(shape: BatchShape) -> str:
    """Which of `KINDS` a batch is."""
    decodes = shape.decode_requests or shape.padding_requests
    if shape.prefill_requests:
        return "mixed" if decodes else "prefill"
    return "decode" if decodes else "copies"


def features_of_steps(
    column: Callable[[str], npt.NDArray[Any]], padding: Padding
) -> dict[str, Floats]:
    """The features of every iteration; `column` gives a column of the steps by name.

    The same numbers as `features_of` gives one by one.
    """
    alone, padded = column("decode_requests"), column("padding_requests")
    decodes = np.asarray(alone + padded, dtype=np.int64)
    prefill = np.asarray(column("prefill_tokens"), dtype=np.int64)
    chunks = column("prefill_requests")
    tokens = np.where(decodes > 0, _padded_each(padding.decodes, decodes), 0)
    with_chunks = np.maximum(tokens, _padded_each(padding.mixed, decodes + prefill))
    launched = np.zeros(len(decodes))
    if padding.mixed:
        too_large = (decodes + prefill > padding.mixed[-1]) | (chunks > padding.max_chunks)
        launched = np.where(prefill > 0, too_large, 0)
    context = column("context_tokens") + alone + column("padding_context")
    tokens = np.where(prefill > 0, with_chunks, tokens)
    own = {
        "tokens": tokens,
        "tiles": -(-tokens // TILE),
        "launched": launched,
        "decode_requests": decodes,
        "mixed_context": np.where(prefill > 0, context, 0),
        "decode_context": context,
    }
    return {
        name: np.asarray(own[name] if name in own else column(name), dtype=np.float64)
        for name in FEATURES
    }


def _padded(sizes: Sequence[int], count: int) -> int:
    place = bisect_left(sizes, count)
    return sizes[place] if place < len(sizes) else count


def _padded_each(sizes: Sequence[int], counts: Ints) -> Ints:
    places = np.searchsorted(np.array(sizes, dtype=np.int64), counts)
    return np.where(places < len(sizes), np.append(sizes, 0).astype(np.int64)[places], counts)
