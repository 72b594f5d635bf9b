"""Whatever the scheduler decides, the rows hold what a look at every request would find."""

from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from schedsim.content import Content
from schedsim.executor import decode_rows
from schedsim.executor.block_units import BlockUnits
from schedsim.executor.decode_rows import DecodeRows
from schedsim.executor.execution import Execution
from schedsim.executor.timer import DeviceTime
from schedsim.load import Load
from schedsim.memory import KVCache, make_kv_cache
from schedsim.policies import Policy
from schedsim.policies.loading import make_policy
from schedsim.request import Request
from schedsim.scheduler import Batch, Scheduler
from tests.core.harness import ALL_MEMORIES, Guess, Jobs
from tests.core.test_random_policies import Dice
from tests.executor.engines import Clock
from tests.executor.test_runs_logits import ARRIVALS, LENGTHS, OUTPUTS, POLICIES, jobs_of

VOCAB = 97
MAX_MODEL_LEN = 100
SEATS = 5


class RowsRunner:
    """Keeps a device's table as the rows say, and compares it with the memory manager's."""

    launches_ahead: ClassVar[bool] = True

    def __init__(self, kv_cache: KVCache, content: Content, in_one_piece: bool) -> None:
        self.kv_cache = kv_cache
        self.content = content
        self.size = kv_cache.block_size
        self.rows = DecodeRows(
            SEATS, MAX_MODEL_LEN, BlockUnits(self.size, 1), content, VOCAB, kv_cache.block_table,
            in_one_piece=in_one_piece,
        )  # fmt: skip
        self.table = np.full_like(self.rows.table, -1)
        self.decoded = 0

    def warm_up(self) -> None:
        pass

    def release(self) -> None:
        pass

    def prepare(self, batch: Batch, padding: Sequence[Request] = ()) -> Batch:
        indices, blocks = self.rows.follow(batch, padding)
        assert len(set(indices.tolist())) == len(indices)
        self.table.reshape(-1)[indices] = blocks
        if batch.is_empty or not (batch.runs_decodes or padding):
            return batch
        self.rows.check()
        here = [request.id for request in self.rows.requests]
        assert sorted(here) == sorted(request.id for request in [*batch.decodes, *padding])
        for row, request in enumerate(self.rows.requests):
            self._check_row(row, request, is_padding=request in padding)
        self.decoded += 1
        return batch

    def _check_row(self, row: int, request: Request, is_padding: bool) -> None:
        length = request.num_computed_tokens
        position = length - 1
        table = self.kv_cache.block_table(request)
        assert self.rows.lengths[row] == length
        wanted = self.content.token_ids(request.id, position, length, VOCAB)
        assert self.rows.token_ids[row] == wanted[0]
        slot = table[position // self.size] * self.size + position % self.size
        assert self.rows.slots[row] == (0 if is_padding else slot)
        used = 1 if self.rows.in_one_piece else position // self.size + 1
        assert self.table[row, :used].tolist() == list(table[:used])

    def launch(self, prepared: Batch) -> Batch:
        return prepared

    def wait(self, launched: Any) -> DeviceTime:
        return DeviceTime(0.0, None)


def run(
    policy: Policy,
    jobs: Jobs,
    memory: str,
    blocks: int,
    block_size: int,
    lag: int,
    by_table: bool,
) -> int:
    """Execute to the end; how many iterations decoded."""
    trace, outputs = jobs.trace(), jobs.split()
    content = Content.of(trace, outputs)
    kv_cache = make_kv_cache(memory, blocks, block_size, content, MAX_MODEL_LEN)
    scheduler = Scheduler(
        policy, kv_cache, max_seqs=SEATS, token_budget=40, max_model_len=MAX_MODEL_LEN,
        decision_lag=lag, predictor=Guess(), estimator=lambda shape: 1.0,
    )  # fmt: skip
    runner = RowsRunner(kv_cache, content, kv_cache.in_one_piece and not by_table)
    clock = Clock(0.01)
    execution = Execution(
        trace, scheduler, Load(trace, outputs), runner, clock=clock, sleep=clock.sleep
    )
    assert execution.run()
    return runner.decoded


def room_of(jobs: Jobs, memory: str, block_size: int, spare: int) -> int:
    """Blocks with which the longest request runs, and little else."""
    longest = max(map(sum, zip(jobs.prompts, jobs.outputs, strict=True))) + 1
    blocks = -(-longest // block_size) + spare
    return 1 << (blocks - 1).bit_length() if memory.startswith("buddy") else blocks


@pytest.mark.parametrize("policy", POLICIES)
@settings(max_examples=25)
@given(
    prompts=LENGTHS,
    outputs=OUTPUTS,
    arrivals=ARRIVALS,
    block_size=st.integers(1, 5),
    lag=st.integers(0, 1),
    spare=st.integers(0, 8),
    memory=st.sampled_from((*ALL_MEMORIES, "paged,host_blocks=30")),
    by_table=st.booleans(),
)
def test_rows_follow_every_policy_on_every_memory(
    policy: str,
    prompts: list[int],
    outputs: list[int],
    arrivals: list[float],
    block_size: int,
    lag: int,
    spare: int,
    memory: str,
    by_table: bool,
) -> None:
    if memory == "vattention":
        block_size = 4
    jobs = jobs_of(prompts, outputs, arrivals, lag)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode_rows, "WINDOW", 6)
        blocks = room_of(jobs, memory, block_size, spare)
        decoded = run(make_policy(policy), jobs, memory, blocks, block_size, lag, by_table)
        assert decoded or max(jobs.outputs) == 1


@settings(max_examples=60)
@given(
    prompts=LENGTHS,
    outputs=OUTPUTS,
    arrivals=ARRIVALS,
    lag=st.integers(0, 1),
    spare=st.integers(0, 8),
    seed=st.integers(0, 2**32 - 1),
    flags=st.tuples(st.booleans(), st.booleans()),
    memory=st.sampled_from(("paged", "paged,host_blocks=30", "contiguous,reserve=predicted")),
    by_table=st.booleans(),
)
def test_rows_follow_arbitrary_decisions(
    prompts: list[int],
    outputs: list[int],
    arrivals: list[float],
    lag: int,
    spare: int,
    seed: int,
    flags: tuple[bool, bool],
    memory: str,
    by_table: bool,
) -> None:
    jobs = jobs_of(prompts, outputs, arrivals, lag)
    blocks = room_of(jobs, memory, 3, spare)
    run(Dice(seed, 1.0, *flags), jobs, memory, blocks, 3, lag, by_table)
