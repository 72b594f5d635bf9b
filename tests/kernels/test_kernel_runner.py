"""Whatever the scheduler decides, every row that the kernels sample is what the sequence gives."""

from collections import defaultdict
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from schedsim.costs.features import Padding, features_of
from schedsim.executor import iterations, mixed_room
from schedsim.executor.device_clock import CudaClock, HostClock
from schedsim.executor.graphs import MIXED_SIZES, decode_sizes, size_for
from schedsim.executor.kernel_inputs import ChunkInputs, KernelInputs
from schedsim.executor.mixed_room import MixedRoom
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


def test_many_chunks_run_together_at_a_size_with_room_for_them(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    monkeypatch.setattr(iterations, "MIXED_SIZES", (16, 32, 64))
    monkeypatch.setattr(mixed_room, "LEAST_CHUNKS", 2)
    monkeypatch.setattr(mixed_room, "TOKENS_A_CHUNK", 8)
    filled: list[tuple[int, int]] = []
    fill = MixedRoom.fill

    def note(self: MixedRoom, size: int, rows: Any, chunks: ChunkInputs) -> None:
        filled.append((len(chunks.query_lengths), size))
        fill(self, size, rows, chunks)

    monkeypatch.setattr(MixedRoom, "fill", note)
    jobs = Jobs(prompts=[3, 1, 2, 5, 1, 2, 3], outputs=[2] * 7, arrivals=[0.0] * 6 + [0.1])
    check_rows(execute("vllm", jobs, blocks=12, seats=8, device=device))
    assert (6, 64) in filled, "6 chunks of 14 tokens"
    assert (1, 16) in filled


def test_a_batch_begins_when_its_inputs_are_on_their_way(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    """Those of a batch that is launched kernel by kernel, too."""
    monkeypatch.setattr(iterations, "MIXED_SIZES", (16, 40))
    events: list[str] = []

    def note(owner: Any, name: str) -> None:
        noted = getattr(owner, name)

        def call(*args: Any) -> Any:
            events.append(name)
            return noted(*args)

        monkeypatch.setattr(owner, name, call)

    note(iterations, "to_device")
    note(KernelInputs, "send")
    note(MixedRoom, "fill")
    for clock in (CudaClock, HostClock):
        note(clock, "begin")
        note(clock, "end")
    execute("vllm", JOBS, blocks=7, device=device)
    assert {*events} == {"to_device", "send", "fill", "begin", "end"}
    after = [next_one for event, next_one in pairwise(events) if event == "begin"]
    assert {*after} == {"end"}


@pytest.mark.parametrize("seats", [1, 3, 100, 256, 700])
def test_a_step_time_pads_batches_as_the_engine_does(seats: int) -> None:
    inputs = KernelInputs(seats, 16, temperature=0.0, device=torch.device("cpu"))
    room = MixedRoom(MIXED_SIZES, inputs, lambda tokens, sequences: None)  # type: ignore[arg-type, return-value]
    decodes = decode_sizes(seats)
    padding = Padding(decodes=decodes, mixed=room.sizes, chunks=room.chunks)
    rooms = dict(zip(room.sizes, room.chunks, strict=True))
    assert (rooms[32], rooms[512], rooms[1024], rooms[2560]) == (16, 16, 32, 80)
    for count in range(1, seats + 1):
        alone = features_of(BatchShape(decode_requests=count), padding)
        assert (alone.tokens, alone.launched) == (size_for(decodes, count), 0)
        for num_chunks, each in (
            (1, 1),
            (1, 40),
            (17, 2),
            (16, 150),
            (80, 30),
            (81, 30),
            (1, 5000),
        ):
            tokens = num_chunks * each
            mixed = BatchShape(
                decode_requests=count, prefill_requests=num_chunks, prefill_tokens=tokens
            )
            size = room.size_for(count, chunks_of_lengths([each] * num_chunks))
            found = features_of(mixed, padding)
            assert found.launched == (size is None)
            assert found.tokens == (max(count + tokens, 2560) if size is None else size)


def chunks_of_lengths(lengths: list[int]) -> ChunkInputs:
    fields, blocks = np.zeros((4, sum(lengths)), dtype=np.int64), np.zeros((len(lengths), 16))
    return ChunkInputs(fields, lengths, lengths, blocks.astype(np.int32), [], [])
