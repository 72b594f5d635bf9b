"""Batch shapes for the tests of step-time models."""

from collections.abc import Iterable

from hypothesis import strategies as st

from schedsim.scheduler.batch import BatchShape


def batch_shapes() -> st.SearchStrategy[BatchShape]:
    """Batches of prefill chunks, decodes and padding of any size that an engine may run."""
    chunks = st.lists(st.tuples(st.integers(1, 8192), st.integers(0, 131072)), max_size=6)
    contexts = st.lists(st.integers(2, 131072), max_size=6)
    return st.builds(shape_of, chunks, contexts, contexts)


def shape_of(
    chunks: Iterable[tuple[int, int]],
    decode_contexts: Iterable[int] = (),
    padding_contexts: Iterable[int] = (),
    sampled: int | None = None,
) -> BatchShape:
    """The shape of (tokens, context) chunks and of decodes with so many known tokens."""
    shape = BatchShape()
    for tokens, context in chunks:
        shape.prefill_requests += 1
        shape.prefill_tokens += tokens
        shape.prefill_context += context
        shape.prefill_attention += tokens * (context + tokens / 2)
        shape.prefill_longest = max(shape.prefill_longest, context + tokens)
    for context in decode_contexts:
        shape.decode_requests += 1
        shape.decode_context += context
        shape.longest_context = max(shape.longest_context, context)
    for context in padding_contexts:
        shape.padding_requests += 1
        shape.padding_context += context
    shape.sampled = shape.decode_requests if sampled is None else sampled
    return shape
