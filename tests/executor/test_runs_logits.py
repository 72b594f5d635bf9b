"""Whatever the scheduler decides, every sampled row is what the whole sequence gives uncached."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from schedsim.executor import runner
from schedsim.policies.loading import make_policy
from tests.core.harness import ALL_MEMORIES, Guess, Jobs
from tests.core.test_random_policies import Dice
from tests.executor.engines import Executed, execute
from tests.executor.models import relative_error

POLICIES = (
    "vllm",
    "sarathi,chunk_size=5",
    "vllm-v0",
    "static,batch_size=3",
    "vllm-v0,chunked=true,preemption=swap",
    "orca,reserve=limit",
    "tgi",
    "trtllm,capacity=max-utilization,chunking=equal-progress",
    "past-future,window=2",
    "sglang,order=lpm,chunk_size=8,conservativeness=0.1",
    "order=srtf,admit=chunk,victim=fewest,mode=swap",
)
TOLERANCE = {torch.float32: 1e-4, torch.float64: 1e-10}

LENGTHS = st.lists(st.integers(1, 20), min_size=1, max_size=7)
OUTPUTS = st.lists(st.integers(1, 20), min_size=7, max_size=7)
ARRIVALS = st.lists(st.floats(0, 1), min_size=7, max_size=7)


@pytest.fixture(scope="module", autouse=True)
def short_windows() -> Iterator[None]:
    """Let the token ids of a request be made in many pieces."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "LOOK_AHEAD", 5)
        yield


def check_rows(executed: Executed) -> None:
    lengths: dict[int, set[int]] = defaultdict(set)
    expected = {}
    for request, length, logits in executed.rows:
        if request not in expected:
            expected[request] = executed.expected(request)
        error = relative_error(logits, expected[request][length - 1])
        assert error < TOLERANCE[executed.dtype], f"request {request} after {length} tokens"
        lengths[request].add(length)
    requests = executed.result.requests
    for request in requests[requests["status"] == "finished"]["request"]:
        prompt, output = executed.jobs.prompts[request], executed.jobs.outputs[request]
        in_vain = {prompt + output} if executed.jobs.limits is not None else set()
        assert lengths[request] - in_vain == set(range(prompt, prompt + output))


def jobs_of(
    prompts: list[int], outputs: list[int], arrivals: list[float], decision_lag: int = 0
) -> Jobs:
    """With overlapped decisions every other end is not known in advance."""
    count = len(prompts)
    jobs = Jobs(prompts, outputs[:count], arrivals=[0.0, *sorted(arrivals[: count - 1])])
    if decision_lag:
        limits = [tokens + row % 2 for row, tokens in enumerate(jobs.outputs)]
        jobs = dataclasses.replace(jobs, limits=limits)
    return jobs


def conversations_of(
    prompts: list[int], outputs: list[int], arrivals: list[float], decision_lag: int = 0
) -> Jobs:
    """Every second request goes on where the one before it ended, so its beginning is cached."""
    jobs = jobs_of(prompts, outputs, arrivals, decision_lag)
    lengths = list(jobs.prompts)
    parents = [row - 1 if row % 2 else -1 for row in range(len(lengths))]
    for row in range(1, len(lengths), 2):
        lengths[row] += lengths[row - 1] + jobs.outputs[row - 1]
    return dataclasses.replace(jobs, prompts=lengths, parents=parents)


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=15)
@given(
    prompts=LENGTHS,
    outputs=OUTPUTS,
    arrivals=ARRIVALS,
    block_size=st.integers(1, 5),
    decision_lag=st.integers(0, 1),
    spare=st.integers(0, 8),
    seats=st.integers(1, 5),
    budget=st.integers(20, 50),
    dtype=st.sampled_from((torch.float32, torch.float64)),
)
def test_every_policy_computes_what_the_sequences_give_alone(
    policy: str,
    prompts: list[int],
    outputs: list[int],
    arrivals: list[float],
    block_size: int,
    decision_lag: int,
    spare: int,
    seats: int,
    budget: int,
    dtype: torch.dtype,
) -> None:
    executed = execute(
        make_policy(policy),
        jobs_of(prompts, outputs, arrivals, decision_lag),
        decision_lag=decision_lag,
        blocks=-(-40 // block_size) + spare,
        block_size=block_size,
        seats=seats,
        budget=budget,
        dtype=dtype,
    )
    check_rows(executed)


@settings(max_examples=40)
@given(
    prompts=LENGTHS,
    outputs=OUTPUTS,
    arrivals=ARRIVALS,
    block_size=st.integers(1, 5),
    decision_lag=st.integers(0, 1),
    spare=st.integers(0, 8),
    concurrency=st.none() | st.integers(1, 4),
    host=st.sampled_from((0, 6, 60)),
    seed=st.integers(0, 2**32),
    flags=st.tuples(st.booleans(), st.booleans()),
)
def test_random_decisions_compute_what_the_sequences_give_alone(
    prompts: list[int],
    outputs: list[int],
    arrivals: list[float],
    block_size: int,
    decision_lag: int,
    spare: int,
    concurrency: int | None,
    host: int,
    seed: int,
    flags: tuple[bool, bool],
) -> None:
    executed = execute(
        Dice(seed, 1.0, *flags),
        jobs_of(prompts, outputs, arrivals, decision_lag),
        decision_lag=decision_lag,
        blocks=-(-40 // block_size) + spare,
        block_size=block_size,
        seats=4,
        budget=30,
        concurrency=concurrency,
        memory=f"paged,host_blocks={host}",
    )
    check_rows(executed)


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=12)
@given(
    prompts=LENGTHS,
    outputs=OUTPUTS,
    arrivals=ARRIVALS,
    block_size=st.integers(1, 5),
    decision_lag=st.integers(0, 1),
    spare=st.integers(0, 12),
    seats=st.integers(1, 5),
    budget=st.integers(20, 50),
)
def test_what_the_prefix_cache_gives_is_what_was_computed(
    policy: str,
    prompts: list[int],
    outputs: list[int],
    arrivals: list[float],
    block_size: int,
    decision_lag: int,
    spare: int,
    seats: int,
    budget: int,
) -> None:
    executed = execute(
        make_policy(policy),
        conversations_of(prompts, outputs, arrivals, decision_lag),
        decision_lag=decision_lag,
        blocks=-(-82 // block_size) + spare,
        block_size=block_size,
        seats=seats,
        budget=max(budget, 82) if policy == "vllm-v0" else budget,
        memory="paged,prefix_caching=true",
    )
    check_rows(executed)


@settings(max_examples=30)
@given(
    prompts=LENGTHS,
    outputs=OUTPUTS,
    arrivals=ARRIVALS,
    block_size=st.integers(1, 5),
    decision_lag=st.integers(0, 1),
    spare=st.integers(0, 8),
    host=st.sampled_from((0, 6, 60)),
    seed=st.integers(0, 2**32),
    flags=st.tuples(st.booleans(), st.booleans()),
)
def test_random_decisions_find_what_was_computed(
    prompts: list[int],
    outputs: list[int],
    arrivals: list[float],
    block_size: int,
    decision_lag: int,
    spare: int,
    host: int,
    seed: int,
    flags: tuple[bool, bool],
) -> None:
    executed = execute(
        Dice(seed, 1.0, *flags),
        conversations_of(prompts, outputs, arrivals, decision_lag),
        decision_lag=decision_lag,
        blocks=-(-82 // block_size) + spare,
        block_size=block_size,
        seats=4,
        budget=30,
        memory=f"paged,prefix_caching=true,host_blocks={host}",
    )
    check_rows(executed)


@settings(max_examples=60)
@given(
    prompts=LENGTHS,
    outputs=OUTPUTS,
    arrivals=ARRIVALS,
    block_size=st.integers(1, 5),
    decision_lag=st.integers(0, 1),
    spare=st.integers(0, 8),
    memory=st.sampled_from(ALL_MEMORIES),
    seed=st.integers(0, 2**32),
    flags=st.tuples(st.booleans(), st.booleans()),
)
def test_whatever_the_memory_manager_moves_shares_or_drops(
    prompts: list[int],
    outputs: list[int],
    arrivals: list[float],
    block_size: int,
    decision_lag: int,
    spare: int,
    memory: str,
    seed: int,
    flags: tuple[bool, bool],
) -> None:
    executed = execute(
        Dice(seed, 1.0, *flags),
        conversations_of(prompts, outputs, arrivals, decision_lag),
        decision_lag=decision_lag,
        blocks=-(-82 // block_size) + spare,
        block_size=block_size,
        seats=4,
        budget=30,
        memory=memory,
        predictor=Guess(),
    )
    check_rows(executed)


@pytest.mark.parametrize("compaction", ["false", "true"])
def test_a_moved_request_reads_what_it_wrote_before(compaction: str) -> None:
    jobs = Jobs([9, 8, 7, 10, 6, 5], [12, 4, 20, 12, 14, 9], limits=[20] * 6)
    memory = f"contiguous,reserve=predicted,compaction={compaction}"
    executed = execute(
        make_policy("vllm"), jobs, blocks=26, block_size=3, memory=memory, predictor=Guess()
    )
    assert executed.result.summary["copied_blocks"] > 0
    assert executed.result.summary["requests"]["finished"] == 6
    check_rows(executed)


def test_a_follow_up_computes_only_what_is_new() -> None:
    jobs = conversations_of([16, 5], [9, 3], [0.0])
    executed = execute(make_policy("vllm"), jobs, memory="paged,prefix_caching=true")
    assert executed.result.requests["cached_tokens"].tolist() == [0, 24]
    check_rows(executed)


def test_a_preempted_request_is_recomputed_and_goes_on() -> None:
    jobs = Jobs([9, 8, 7], [12, 12, 12])
    executed = execute(make_policy("vllm"), jobs, blocks=10, block_size=4, seats=3)
    assert sum(len(iteration.preempted) for iteration in executed.iterations) > 0
    assert executed.result.requests["recomputed_tokens"].sum() > 0
    check_rows(executed)


@pytest.mark.parametrize("caching", ["false", "true"])
def test_a_swapped_request_comes_back_and_computes_nothing_again(caching: str) -> None:
    jobs = Jobs([9, 8, 7], [12, 12, 12])
    memory = f"paged,host_blocks=20,prefix_caching={caching}"
    policy = make_policy("vllm-v0,preemption=swap")
    executed = execute(policy, jobs, blocks=10, block_size=4, seats=3, memory=memory)
    assert executed.result.summary["preemptions"] > 0
    assert executed.result.summary["swapped_blocks"] > 0
    assert executed.result.summary["recomputed_tokens"] == 0
    check_rows(executed)


def test_finished_members_of_a_static_batch_are_computed_to_its_end() -> None:
    executed = execute(make_policy("static,batch_size=2"), Jobs([6, 3], [2, 9]), budget=None)
    assert len(executed.rows) == 2 * 9
    lengths = [length for request, length, _ in executed.rows if request == 0]
    assert lengths == [6, 7] + [7] * 7
    check_rows(executed)
