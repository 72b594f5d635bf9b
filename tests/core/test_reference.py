"""Shipped policies against the plain schedulers of `reference.py`, block ids included."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from schedsim.content import Content
from schedsim.memory import make_kv_cache
from schedsim.policies import VLLM, Policy, Sarathi, VLLMv0
from schedsim.request import Request
from schedsim.scheduler import Scheduler
from tests.core.harness import Jobs
from tests.core.reference import (
    Decision,
    Job,
    ReferenceSarathi,
    ReferenceScheduler,
    ReferenceVLLM,
    ReferenceVLLMv0,
)

MAX_MODEL_LEN = 120

Arrival = tuple[int, int, int, list[int]]
"""Iteration, prompt tokens, output tokens, what the prompt begins with."""

ARRIVALS = st.lists(
    st.tuples(
        st.one_of(st.just(0), st.integers(0, 30)),
        st.one_of(st.integers(1, 60), st.sampled_from([1, 4, 16])),
        st.one_of(st.integers(1, 60), st.just(1)),
        st.one_of(
            st.just([]),
            st.lists(st.integers(0, 1), max_size=20),
            st.integers(0, 60).map(lambda tokens: [0] * tokens),
        ),
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
    policy: Policy,
    reference: ReferenceScheduler,
    arrivals: Sequence[Arrival],
    budget: int | None,
    caching: bool,
) -> None:
    """Drive both to their end; every decision and every completion is the same."""
    due = sorted(arrivals, key=lambda arrival: arrival[0])
    jobs = Jobs(
        [prompt for _, prompt, _, _ in due],
        [output for _, _, output, _ in due],
        chains=[begin[:prompt] for _, prompt, _, begin in due],
    )
    content = Content.of(jobs.trace(), jobs.split())
    reference.has_prefix_cache = caching
    memory = f"paged,prefix_caching={str(caching).lower()}"
    scheduler = Scheduler(
        policy,
        make_kv_cache(memory, reference.total, reference.block_size, content),
        max_seqs=reference.seats,
        token_budget=budget,
        max_model_len=MAX_MODEL_LEN,
    )
    number = 0
    now = 0
    while number < len(due) or scheduler.has_work:
        while number < len(due) and due[number][0] <= now:
            _, prompt, output, _ = due[number]
            request = Request(number, float(due[number][0]), prompt, output)
            if scheduler.add(request, output, float(now)):
                tokens = content.token_ids(number, 0, prompt + output, 2**62).tolist()
                reference.waiting.append(Job(number, prompt, output, tokens=tokens))
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
    st.booleans(),
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
    caching: bool,
) -> None:
    reference = ReferenceVLLM(
        blocks, block_size, seats, budget, whole_sequence, watermark, threshold
    )
    policy = VLLM(
        whole_sequence=whole_sequence, watermark=watermark, long_prefill_threshold=threshold
    )
    compare(policy, reference, arrivals, budget, caching)


@given(ARRIVALS, BLOCKS, BLOCK_SIZES, SEATS, BUDGETS, WATERMARKS, st.booleans())
def test_sarathi_equals_the_plain_scheduler(
    arrivals: list[Arrival],
    blocks: int,
    block_size: int,
    seats: int,
    chunk_size: int,
    watermark: float,
    caching: bool,
) -> None:
    reference = ReferenceSarathi(blocks, block_size, seats, chunk_size, watermark)
    compare(Sarathi(chunk_size, watermark), reference, arrivals, None, caching)


@given(ARRIVALS, BLOCKS, BLOCK_SIZES, SEATS, st.integers(1, 200), WATERMARKS, st.booleans())
def test_vllm_v0_equals_the_plain_scheduler(
    arrivals: list[Arrival],
    blocks: int,
    block_size: int,
    seats: int,
    budget: int,
    watermark: float,
    caching: bool,
) -> None:
    reference = ReferenceVLLMv0(blocks, block_size, seats, budget, watermark)
    compare(VLLMv0(watermark), reference, arrivals, budget, caching)
