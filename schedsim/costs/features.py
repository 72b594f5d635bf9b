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
    "prefill_span",
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
    that has too many tokens, or too many chunks, to be captured; `prefill_span` are the keys
    that the device passes one after the other while it attends to all chunks: those of the longest,
    or all pairs of query and key over the queries that it attends to at once, whichever is more; 0
    where the engine does not say how many these are; `mixed_context` is
    `decode_context` where there are chunks, too, and 0 elsewhere: kernels may read it otherwise.
    The others are those of `BatchShape`; decodes include the padding of a static batch, which costs
    what decodes cost, except in `longest_context`.
    """

    tokens: int
    tiles: int
    launched: int
    decode_requests: int
    prefill_requests: int
    prefill_tokens: int
    prefill_context: int
    prefill_attention: float
    prefill_span: float
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

    Batches of decodes alone have one of the sizes `decodes`; those with prefill chunks have in all
    one of the sizes `mixed`, which has room for as many chunks as `chunks` says at the same place.
    Sizes ascend, chunks never fall. Larger batches are not padded.

    `attended` is of how many chunk tokens its device runs the attention at once, the others after
    them; 0 where that is not known.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    decodes: list[int] = Field(default_factory=list)
    mixed: list[int] = Field(default_factory=list)
    chunks: list[int] = Field(default_factory=list)
    attended: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _ascend(self) -> "Padding":
        for sizes in (self.decodes, self.mixed):
            if any(low >= high for low, high in pairwise([0, *sizes])):
                raise ValueError("sizes must ascend from 1")
        if len(self.chunks) != len(self.mixed):
            raise ValueError("there must be as many chunks as mixed sizes")
        if any(low > high for low, high in pairwise([1, *self.chunks])):
            raise ValueError("chunks must be 1 or more and never fall")
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
        together, chunks = decodes + shape.prefill_tokens, shape.prefill_requests
        tokens = max(tokens, _padded_with_chunks(padding, together, chunks))
        if padding.mixed:
            launched = int(together > padding.mixed[-1] or chunks > padding.chunks[-1])
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
        _span(padding, shape),
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
    chunks = np.asarray(column("prefill_requests"), dtype=np.int64)
    together = decodes + prefill
    tokens = np.where(decodes > 0, _padded_each(padding.decodes, decodes), 0)
    with_chunks = np.maximum(tokens, _padded_with_chunks_each(padding, together, chunks))
    launched = np.zeros(len(decodes))
    if padding.mixed:
        too_large = (together > padding.mixed[-1]) | (chunks > padding.chunks[-1])
        launched = np.where(prefill > 0, too_large, 0)
    context = column("context_tokens") + alone + column("padding_context")
    tokens = np.where(prefill > 0, with_chunks, tokens)
    own = {
        "tokens": tokens,
        "tiles": -(-tokens // TILE),
        "launched": launched,
        "decode_requests": decodes,
        "prefill_span": _span_each(padding, column),
        "mixed_context": np.where(prefill > 0, context, 0),
        "decode_context": context,
    }
    return {
        name: np.asarray(own[name] if name in own else column(name), dtype=np.float64)
        for name in FEATURES
    }


def _span(padding: Padding, shape: BatchShape) -> float:
    if not padding.attended:
        return 0.0
    return max(float(shape.prefill_longest), shape.prefill_attention / padding.attended)


def _span_each(padding: Padding, column: Callable[[str], npt.NDArray[Any]]) -> Floats:
    longest = np.asarray(column("prefill_longest"), dtype=np.float64)
    if not padding.attended:
        return np.zeros(len(longest))
    return np.maximum(longest, column("prefill_attention") / padding.attended)


def _padded(sizes: Sequence[int], count: int) -> int:
    return _size_at(sizes, bisect_left(sizes, count), count)


def _padded_with_chunks(padding: Padding, tokens: int, chunks: int) -> int:
    """The size with room for both; chunks that none has room for count as the most that one has,
    so that a batch with more of them has no fewer tokens."""
    sizes, rooms = padding.mixed, padding.chunks
    if not sizes:
        return tokens
    place = max(bisect_left(sizes, tokens), bisect_left(rooms, min(chunks, rooms[-1])))
    return _size_at(sizes, place, tokens)


def _size_at(sizes: Sequence[int], place: int, count: int) -> int:
    return sizes[place] if place < len(sizes) else count


def _padded_each(sizes: Sequence[int], counts: Ints) -> Ints:
    return _sizes_at(sizes, np.searchsorted(_ints(sizes), counts), counts)


def _padded_with_chunks_each(padding: Padding, tokens: Ints, chunks: Ints) -> Ints:
    places = np.searchsorted(_ints(padding.mixed), tokens)
    if padding.mixed:
        needed = np.minimum(chunks, padding.chunks[-1])
        places = np.maximum(places, np.searchsorted(_ints(padding.chunks), needed))
    return _sizes_at(padding.mixed, places, tokens)


def _sizes_at(sizes: Sequence[int], places: Ints, counts: Ints) -> Ints:
    return np.where(places < len(sizes), _ints([*sizes, 0])[places], counts)


def _ints(numbers: Sequence[int]) -> Ints:
    return np.array(numbers, dtype=np.int64)
