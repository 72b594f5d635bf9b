"""Whatever the scheduler decides, every row that the kernels sample is what the sequence gives."""

from collections import defaultdict

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from schedsim.costs.features import Padding, features_of
from schedsim.executor import iterations
from schedsim.executor.graphs import MIXED_SIZES, decode_sizes, size_for
from schedsim.executor.mixed_room import MAX_CHUNKS
from schedsim.scheduler.batch import BatchShape
from tests.core.harness import Jobs
from tests.kernels.kernel_engines import Executed, execute, requests_of

JOBS = Jobs(
    prompts=[30, 14, 40, 15, 16], outputs=[4, 6, 2, 4, 1], arrivals=[0.0, 0.0, 0.0, 0.1, 0.1]
)
SETTINGS = {
    "paged": ("vllm", "paged", 4, "recomputed_tokens"),
    "prefix caching": ("sarathi,chunk_size=24", "paged,prefix_caching=true", 6, "preemptions"),
    "swap": ("vllm-v0,chunked=true,preemption=swap", "paged,host_blocks=9", 6, "swapped_blocks"),
    "contiguous": ("vllm", "contiguous", 12, None),
    "moved": ("vllm", "contiguous,reserve=predicted,compaction=true", 9, "copied_blocks"),
    "buddy": ("vllm", "buddy", 8, "copied_blocks"),
    "static": ("static,batch_size=3", "paged", 12, None),
    "radix": ("sglang,order=lpm,chunk_size=24,conservativeness=0.1", "radix", 8, None),
    "held": (
        "order=srtf,admit=chunk,victim=fewest,mode=swap",
        "paged,host_blocks=9",
        6,
        "swapped_blocks",
    ),
}
"""Policy, memory, blocks, and what the run's summary must count."""

TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 2e-2}


def check_rows(executed: Executed) -> None:
    """Every row is right, and there is one for every output token of every request."""
    lengths: dict[int, set[int]] = defaultdict(set)
    expected = {}
    for request, length, logits in executed.rows:
        if request not in expected:
            expected[request] = executed.expected(request)
        wanted = expected[request][length - 1]
        error = float((logits.float() - wanted).norm() / wanted.norm())
        assert error < TOLERANCE[logits.dtype], f"request {request} after {length} tokens"
        lengths[request].add(length)
    jobs = executed.jobs
    finished = requests_of(executed)
    assert finished == set(range(len(jobs.prompts)))
    for request in finished:
        prompt, output = jobs.prompts[request], jobs.outputs[request]
        assert lengths[request] >= set(range(prompt, prompt + output))


@pytest.mark.parametrize("name", SETTINGS)
def test_every_sampled_row_is_what_the_sequence_gives_alone(name: str, device: str) -> None:
    policy, memory, blocks, happens = SETTINGS[name]
    executed = execute(policy, JOBS, blocks=blocks, memory=memory, device=device)
    check_rows(executed)
    assert happens is None or executed.result.summary[happens] > 0


def test_what_lies_in_one_piece_is_read_by_a_table_too(device: str) -> None:
    policy, memory, blocks, happens = SETTINGS["buddy"]
    executed = execute(policy, JOBS, blocks=blocks, memory=memory, by_table=True, device=device)
    check_rows(executed)
    assert happens is not None
    assert executed.result.summary[happens] > 0


def test_decisions_after_the_end_compute_the_same(device: str) -> None:
    check_rows(execute("vllm", JOBS, blocks=7, decision_lag=0, device=device))


def test_the_warm_up_takes_no_more_rows_than_there_are_seats(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(iterations, "WARM_UP_TOKENS", (1, 2))
    executed = execute("vllm", JOBS, blocks=7, seats=2, device=device, captured=True)
    assert requests_of(executed) == set(range(5))
    assert executed.tokens
    assert executed.described["kernels"] == "paged"
    padding = Padding(**executed.described["padding"])
    assert (padding.decodes, padding.mixed[0]) == ([1, 2], 32)


@pytest.mark.parametrize("seats", [1, 3, 100, 256, 700])
def test_a_step_time_pads_batches_as_the_engine_does(seats: int) -> None:
    decodes = decode_sizes(seats)
    padding = Padding(decodes=decodes, mixed=list(MIXED_SIZES), max_chunks=MAX_CHUNKS)
    for count in range(1, seats + 1):
        alone = features_of(BatchShape(decode_requests=count), padding)
        assert (alone.tokens, alone.launched) == (size_for(decodes, count), 0)
        for tokens in (1, 40, 2400, 5000):
            mixed = BatchShape(decode_requests=count, prefill_requests=1, prefill_tokens=tokens)
            found, size = features_of(mixed, padding), size_for(MIXED_SIZES, count + tokens)
            assert found.tokens == (count + tokens if size is None else size)
            assert found.launched == (size is None)
    many = BatchShape(prefill_requests=MAX_CHUNKS + 1, prefill_tokens=100)
    assert features_of(many, padding).launched == 1
