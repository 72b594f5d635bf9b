"""Shipped policies against the plain schedulers of `reference.py`, block ids included."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from schedsim.memory import PagedKVCache
from schedsim.policies import VLLM, Policy, Sarathi, VLLMv0
from schedsim.request import Request
from schedsim.scheduler import Scheduler
from tests.core.reference import (
    Decision,
    Job,
    ReferenceSarathi,
    ReferenceScheduler,
    ReferenceVLLM,
    ReferenceVLLMv0,
)
from tests.test_vllm_oracle import LongPrefillVLLM

MAX_MODEL_LEN = 120

Arrival = tuple[int, int, int]
"""Iteration, prompt tokens, output tokens."""

ARRIVALS = st.lists(
    st.tuples(
        st.one_of(st.just(0), st.integers(0, 30)),
        st.one_of(st.integers(1, 60), st.sampled_from([1, 4, 16])),
        st.one_of(st.integers(1, 60), st.just(1)),
    ),
    min_size=1,
    max_size=16,
)
BLOCKS = st.integers(2, 60)
BLOCK_SIZES = st.sampled_from([1, 2, 3, 4, 8, 16])
SEATS = st.integers(1, 9)
BUDGETS = st.one_of(st.integers(1, 12), st.integers(1, 120))
WATERMARKS = st.sampled_from([0.0, 0.01, 0.1, 0.3])


def compare(
    policy: Policy, reference: ReferenceScheduler, arrivals: Sequence[Arrival], budget: int | None
) -> None:
    """Drive both to their end; every decision and every completion is the same."""
    scheduler = Scheduler(
        policy,
        PagedKVCache(reference.total, reference.block_size),
        max_seqs=reference.seats,
        token_budget=budget,
        max_model_len=MAX_MODEL_LEN,
    )
    due = sorted(arrivals, key=lambda arrival: arrival[0])
    number = 0
    now = 0
    while number < len(due) or scheduler.has_work:
        while number < len(due) and due[number][0] <= now:
            _, prompt, output = due[number]
            request = Request(number, float(due[number][0]), prompt, output)
            if scheduler.add(request, output, float(now)):
                reference.waiting.append(Job(number, prompt, output))
            number += 1
        compare_iteration(scheduler, reference, now)
        now += 1
        assert now < 5000, "no end"
    assert not reference.running
    assert not reference.waiting
    assert len(reference.free) == reference.total


def compare_iteration(scheduler: Scheduler, reference: ReferenceScheduler, now: int) -> None:
    batch = scheduler.schedule(float(now))
    entries = batch.expand()
    decision = Decision(
        [(e.request.id, e.tokens, e.kind, e.context) for e in entries],
        [request.id for request in batch.preempted],
        {e.request.id: list(scheduler.kv_cache.block_table(e.request)) for e in entries},
        scheduler.kv_cache.free_blocks,
    )
    assert decision == reference.schedule()
    completion = scheduler.complete(batch, now + 1.0)
    scheduler.check()
    sampled = [request.id for request in completion.sampled()]
    finished = [request.id for request in completion.finished]
    assert (sampled, finished) == reference.complete()
    assert [r.id for r in scheduler.running] == [job.id for job in reference.running]
    assert [r.id for r in scheduler.waiting] == [job.id for job in reference.waiting]
    for request, job in zip(scheduler.running, reference.running, strict=True):
        assert request.num_computed_tokens == job.computed
        assert request.num_generated_tokens == job.emitted


@given(
    ARRIVALS,
    BLOCKS,
    BLOCK_SIZES,
    SEATS,
    BUDGETS,
    st.booleans(),
    WATERMARKS,
    st.sampled_from([0, 0, 1, 3, 8, 20]),
)
def test_vllm_equals_the_plain_scheduler(
    arrivals: list[Arrival],
    blocks: int,
    block_size: int,
    seats: int,
    budget: int,
    whole_sequence: bool,
    watermark: float,
    threshold: int,
) -> None:
    reference = ReferenceVLLM(
        blocks, block_size, seats, budget, whole_sequence, watermark, threshold
    )
    policy = VLLM(whole_sequence, watermark)
    if threshold:
        policy = LongPrefillVLLM(whole_sequence, watermark, threshold)
    compare(policy, reference, arrivals, budget)


@given(ARRIVALS, BLOCKS, BLOCK_SIZES, SEATS, BUDGETS, WATERMARKS)
def test_sarathi_equals_the_plain_scheduler(
    arrivals: list[Arrival],
    blocks: int,
    block_size: int,
    seats: int,
    chunk_size: int,
    watermark: float,
) -> None:
    reference = ReferenceSarathi(blocks, block_size, seats, chunk_size, watermark)
    compare(Sarathi(chunk_size, watermark), reference, arrivals, None)


@given(ARRIVALS, BLOCKS, BLOCK_SIZES, SEATS, st.integers(1, 200), WATERMARKS)
def test_vllm_v0_equals_the_plain_scheduler(
    arrivals: list[Arrival],
    blocks: int,
    block_size: int,
    seats: int,
    budget: int,
    watermark: float,
) -> None:
    reference = ReferenceVLLMv0(blocks, block_size, seats, budget, watermark)
    compare(VLLMv0(watermark), reference, arrivals, budget)
