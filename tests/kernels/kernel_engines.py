"""The core's scheduler on `KernelRunner`: a tiny decoder in the interpreter, or on a GPU."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from schedsim.content import Content
from schedsim.executor.config import ModelConfig, tiny
from schedsim.executor.device_clock import CudaClock, HostClock
from schedsim.executor.execution import Execution
from schedsim.executor.forward_batch import Segment, build_batch
from schedsim.executor.kept_parts import KeptParts
from schedsim.executor.kernel_decoder import KernelBatch, KernelDecoder
from schedsim.executor.kernel_runner import KernelRunner, LaunchedBatch, PreparedBatch
from schedsim.executor.kv_cache import KVStore
from schedsim.executor.model import Decoder
from schedsim.executor.timer import DeviceTime
from schedsim.executor.weights import DecoderWeights, LayerWeights, Linear, random_weights
from schedsim.load import Load
from schedsim.memory import make_kv_cache
from schedsim.policies.loading import make_policy
from schedsim.request import Request
from schedsim.results import Result, build_result
from schedsim.scheduler import Batch, Scheduler
from tests.core.harness import Guess, Iteration, Jobs, Journal
from tests.executor.engines import Clock

CONFIG = tiny(
    layers=1, hidden=32, head_dim=64, heads=2, kv_heads=1, intermediate=48, vocab=31, qk_norm=True
)


class KeepingDecoder(KernelDecoder):
    """Keeps the logits of the batch that ran last, and how many tokens each row's sequence had."""

    def run(self, batch: KernelBatch, store: KVStore) -> Tensor:
        logits = super().run(batch, store)
        rows = slice(None) if batch.sampled_rows is None else batch.sampled_rows
        self.rows = list(zip(batch.context_lengths[rows].tolist(), logits, strict=True))
        return logits


class KeepingRunner(KernelRunner):
    """Keeps every sampled row of the run: request, tokens of its sequence, logits.

    Decodes are launched kernel by kernel, so that there is something to keep; with a decoder that
    keeps nothing they are captured. `tokens` are the sampled ones of every batch, by request.
    """

    def __init__(self, *parts: Any, **options: Any) -> None:
        super().__init__(*parts, **options)
        self.rows: list[tuple[int, int, Tensor]] = []
        self.tokens: list[dict[int, int]] = []

    def warm_up(self) -> None:
        if not isinstance(self.decoder, KeepingDecoder):
            super().warm_up()

    def prepare(self, batch: Batch, padding: Any = ()) -> PreparedBatch:
        prepared = super().prepare(batch, padding)
        if prepared.num_rows:
            self.check()
        return prepared

    def launch(self, prepared: PreparedBatch) -> LaunchedBatch:
        if not isinstance(self.decoder, KeepingDecoder):
            return super().launch(prepared)
        self.decoder.rows = []
        launched = super().launch(prepared)
        rows = self.decoder.rows[: len(prepared.sampling)]
        for request, (length, logits) in zip(prepared.sampling, rows, strict=True):
            self.rows.append((request.id, length, logits.clone()))
        return launched

    def wait(self, launched: LaunchedBatch) -> DeviceTime:
        time = super().wait(launched)
        if launched.visible is not None:
            ids = [request.id for request in launched.prepared.sampling]
            self.tokens.append(dict(zip(ids, launched.visible.tolist(), strict=True)))
        return time


@dataclass
class Executed:
    """A run that came to its end; `rows` are (request, tokens so far, logits after them).

    `tokens` are those that each batch sampled, `described` is what the runner says of itself.
    """

    result: Result
    iterations: list[Iteration]
    rows: list[tuple[int, int, Tensor]]
    tokens: list[dict[int, int]]
    content: Content
    jobs: Jobs
    reference: Decoder
    described: dict[str, Any]

    def expected(self, request: int) -> Tensor:
        """Float32 logits after each token that the trace declares for `request`, by torch."""
        config, tokens = self.reference.config, self.jobs.prompts[request]
        tokens += int(self.jobs.split().tokens[request])
        ids = self.content.token_ids(request, 0, tokens, config.shape.vocab)
        device = self.reference.device
        batch = build_batch([Segment(ids, 0, [1])], len(ids), device=device)
        rows = torch.arange(len(ids), device=device)
        batch = dataclasses.replace(batch, sampled_rows=rows)
        store = KVStore(config.shape, 1, len(ids), device=device)
        return self.reference.forward(batch, store)


def converted(weights: DecoderWeights) -> DecoderWeights:
    """The same parameters in float32."""

    def convert(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.float()
        if isinstance(value, Linear):
            return Linear(convert(value.weight), convert(value.bias))
        if isinstance(value, LayerWeights):
            names = [field.name for field in dataclasses.fields(value)]
            return LayerWeights(**{name: convert(getattr(value, name)) for name in names})
        return [convert(part) for part in value] if isinstance(value, list) else value

    names = [field.name for field in dataclasses.fields(weights)]
    return DecoderWeights(**{name: convert(getattr(weights, name)) for name in names})


def execute(
    policy: str,
    jobs: Jobs,
    *,
    blocks: int,
    block_size: int = 16,
    seats: int = 4,
    budget: int | None = 64,
    memory: str = "paged",
    decision_lag: int = 1,
    max_model_len: int = 128,
    config: ModelConfig = CONFIG,
    device: str = "cpu",
    temperature: float = 0.0,
    captured: bool = False,
    by_table: bool = False,
) -> Executed:
    """Execute `jobs` to the end, all invariants asserted after every iteration."""
    trace, outputs = jobs.trace(), jobs.split()
    content = Content.of(trace, outputs)
    kv_cache = make_kv_cache(memory, blocks, block_size, content, max_model_len)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    weights = random_weights(config, 7, dtype=dtype, device=device)
    scheduler = Scheduler(
        make_policy(policy),
        kv_cache,
        max_seqs=seats,
        token_budget=budget,
        max_model_len=max_model_len,
        decision_lag=decision_lag,
        predictor=Guess(),
        estimator=lambda shape: 1.0,
    )
    clock = Clock(0.01)
    runner = KeepingRunner(
        (KernelDecoder if captured else KeepingDecoder)(config, weights),
        KeptParts(torch.device(device)), kv_cache, content,
        CudaClock() if device == "cuda" else HostClock(clock),
        max_seqs=seats, max_model_len=max_model_len, temperature=temperature,
        workspace=0, by_table=by_table,
    )  # fmt: skip
    for layer in runner.store.layers + runner.store.host_layers:
        layer.fill_(torch.nan)  # whoever reads a slot that was not written gets nonsense
    execution = Execution(
        trace, scheduler, Load(trace, outputs), runner, clock=clock, sleep=clock.sleep,
        check_every=1,
    )  # fmt: skip
    journal = Journal()
    execution.observe(journal)
    assert execution.run()
    result = build_result(execution.record())
    reference = Decoder(config, converted(weights))
    return Executed(
        result, journal.iterations, runner.rows, runner.tokens, content, jobs, reference,
        runner.described,
    )  # fmt: skip


def requests_of(executed: Executed) -> set[Request | int]:
    """Ids of the requests that finished."""
    table = executed.result.requests
    return set(table[table["status"] == "finished"]["request"])
