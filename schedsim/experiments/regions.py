"""Iterations sorted by what ran in them: into regions to report on, and sizes to hold out."""

import numpy as np
import numpy.typing as npt

from schedsim.experiments.iterations import KINDS, Iterations

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DECODES = (8, 64, 256)
CHUNK_TOKENS = (128, 512, 2048)
"""The largest sizes of the classes by which regions are told apart; one more is beyond the last."""

LONG = 1024
UNEVEN = 4.0
"""Contexts are long from so many tokens a decode on, uneven where one is so many times the mean."""


def regions_of(iterations: Iterations) -> list[str]:
    """What kind of batch each iteration ran and of what size, in words."""
    terms = iterations.terms
    decodes, chunks = terms["decode_requests"], terms["prefill_tokens"]
    mean = terms["decode_context"] / np.maximum(decodes, 1)
    contexts = np.where(mean < LONG, "short", "long")
    contexts = np.where(terms["longest_context"] > UNEVEN * mean, "uneven", contexts)
    begins = np.where(terms["prefill_context"] > 0, "after context", "from the start")
    words = []
    for row, kind in enumerate(iterations.kind.tolist()):
        name = KINDS[kind]
        if name == "decode":
            name += f", {_class(DECODES, decodes[row])} requests, {contexts[row]} contexts"
        elif name == "prefill":
            name += f", {_class(CHUNK_TOKENS, chunks[row])} tokens, {begins[row]}"
        elif name == "mixed":
            name += f", {_class(CHUNK_TOKENS, chunks[row])} tokens"
        words.append(name)
    return words


def sizes_of(iterations: Iterations) -> Ints:
    """The number of each iteration's size, in the order in which sizes first occur.

    Of one size are iterations with as many decodes, chunks and chunk tokens and, to a half octave,
    as much context and as many copies: what a design repeats, or a busy engine.
    """
    terms = iterations.terms
    exact = ("decode_requests", "prefill_requests", "prefill_tokens")
    rough = ("decode_context", "longest_context", "prefill_context", "swapped_blocks")
    columns = [terms[name] for name in exact]
    columns += [np.round(2 * np.log2(1 + terms[name])) for name in (*rough, "copied_blocks")]
    _, first, number = np.unique(
        np.column_stack(columns), axis=0, return_index=True, return_inverse=True
    )
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return np.asarray(rank[number.reshape(-1)], dtype=np.int64)


def _class(limits: tuple[int, ...], size: float) -> str:
    below = 0
    for limit in limits:
        if size <= limit:
            return f"{below + 1:,} to {limit:,}"
        below = limit
    return f"over {below:,}"
