"""A tiny decoder under the core's scheduler, on a clock of the test's own."""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from schedsim.content import Content
from schedsim.executor.config import tiny
from schedsim.executor.execution import Execution
from schedsim.executor.forward_batch import ForwardBatch, Segment, build_batch
from schedsim.executor.kv_cache import KVStore
from schedsim.executor.model import Decoder
from schedsim.executor.runner import LaunchedBatch, ModelRunner, PreparedBatch
from schedsim.executor.timer import ClockTimer
from schedsim.executor.weights import random_weights
from schedsim.load import Load
from schedsim.memory import make_kv_cache
from schedsim.policies import Policy
from schedsim.results import Result, build_result
from schedsim.scheduler import Scheduler
from tests.core.harness import Iteration, Jobs, Journal

CONFIG = tiny(layers=2, hidden=16, head_dim=8, heads=4, kv_heads=2, intermediate=24, vocab=31)
WEIGHTS = {
    dtype: random_weights(CONFIG, 7, dtype=dtype) for dtype in (torch.float32, torch.float64)
}


@dataclass
class Clock:
    """Passes `tick` seconds at every look at it, and as long as somebody sleeps."""

    tick: float
    now: float = 1000.0
    naps: list[float] = field(default_factory=list)

    def __call__(self) -> float:
        self.now += self.tick
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds


class KeepingDecoder(Decoder):
    """Keeps for every sampled row how many tokens its sequence had, and the logits."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(CONFIG, WEIGHTS[dtype])
        self.rows: list[tuple[int, Tensor]] = []

    def forward(self, batch: ForwardBatch, store: KVStore) -> Tensor:
        logits = super().forward(batch, store)
        lengths = batch.context_lengths[batch.sampled_rows].tolist()
        self.rows = list(zip(lengths, logits, strict=True))
        return logits


class KeepingRunner(ModelRunner):
    """Keeps every sampled row of the run: request, tokens of its sequence, logits."""

    decoder: KeepingDecoder

    def __init__(self, *parts: Any) -> None:
        super().__init__(*parts)
        self.rows: list[tuple[int, int, Tensor]] = []

    def launch(self, prepared: PreparedBatch) -> LaunchedBatch:
        self.decoder.rows = []
        launched = super().launch(prepared)
        for request, (length, logits) in zip(prepared.sampling, self.decoder.rows, strict=True):
            self.rows.append((request.id, length, logits))
        return launched


@dataclass
class Executed:
    """A run that came to its end; `rows` are (request, tokens so far, logits after them)."""

    result: Result
    iterations: list[Iteration]
    rows: list[tuple[int, int, Tensor]]
    content: Content
    jobs: Jobs
    dtype: torch.dtype

    def expected(self, request: int) -> Tensor:
        """Logits after each token that the trace declares for `request`, by one forward pass."""
        tokens = self.jobs.prompts[request] + self.jobs.split().tokens[request]
        ids = self.content.token_ids(request, 0, int(tokens), CONFIG.shape.vocab)
        batch = build_batch([Segment(ids, 0, [1])], len(ids))
        batch = dataclasses.replace(batch, sampled_rows=torch.arange(len(ids)))
        store = KVStore(CONFIG.shape, 1, len(ids), dtype=self.dtype)
        return Decoder(CONFIG, WEIGHTS[self.dtype]).forward(batch, store)


def make_execution(
    policy: Policy,
    jobs: Jobs,
    clock: Clock,
    *,
    blocks: int = 1000,
    block_size: int = 4,
    seats: int = 8,
    budget: int | None = 64,
    max_model_len: int = 1000,
    concurrency: int | None = None,
    memory: str = "paged",
    decision_lag: int = 0,
    dtype: torch.dtype = torch.float64,
) -> tuple[Execution, KeepingRunner]:
    """An execution of `jobs` before its start, all invariants asserted after every iteration."""
    trace, outputs = jobs.trace(), jobs.split()
    content = Content.of(trace, outputs)
    kv_cache = make_kv_cache(memory, blocks, block_size, content)
    store = KVStore(
        CONFIG.shape, blocks, block_size, num_host_blocks=kv_cache.host_blocks, dtype=dtype
    )
    for layer in store.layers + store.host_layers:
        layer.fill_(torch.nan)  # whoever reads a slot that was not written gets nonsense
    scheduler = Scheduler(
        policy,
        kv_cache,
        max_seqs=seats,
        token_budget=budget,
        max_model_len=max_model_len,
        decision_lag=decision_lag,
        estimator=lambda shape: 1.0,
    )
    runner = KeepingRunner(KeepingDecoder(dtype), store, kv_cache, content, ClockTimer(clock))
    execution = Execution(
        trace,
        scheduler,
        Load(trace, outputs, concurrency=concurrency),
        runner,
        clock=clock,
        sleep=clock.sleep,
        check_every=1,
    )
    return execution, runner


def execute(policy: Policy, jobs: Jobs, *, clock: Clock | None = None, **engine: Any) -> Executed:
    """Execute `jobs` to the end; `engine` are the options of `make_execution`."""
    execution, runner = make_execution(policy, jobs, clock or Clock(0.01), **engine)
    journal = Journal()
    execution.observe(journal)
    assert execution.run()
    result = build_result(execution.record())
    content = Content.of(jobs.trace(), jobs.split())
    dtype = runner.decoder.dtype
    return Executed(result, journal.iterations, runner.rows, content, jobs, dtype)
