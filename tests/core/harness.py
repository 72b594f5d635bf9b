"""A policy on a hand-made trace, one second an iteration, and a journal of what it decided."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from schedsim.backend.loop import Observer
from schedsim.content import Content
from schedsim.costs.base import StepCost
from schedsim.costs.linear import LinearCost
from schedsim.load import Load
from schedsim.memory import make_kv_cache
from schedsim.output_limit import Outputs
from schedsim.policies import Policy
from schedsim.predictors import Predictor
from schedsim.request import Request
from schedsim.results import Result, build_result
from schedsim.scheduler import Batch, Completion, Scheduler, TokenLog
from schedsim.simulator import Simulation
from schedsim.traces.trace import PromptBlocks, Trace, TraceSource
from tests.core.paper_device import PaperDevice

ONE_SECOND = LinearCost(1000.0, 0.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Jobs:
    """The requests of a test, a list a column; what is left out is as plain as it can be."""

    prompts: Sequence[int]
    outputs: Sequence[int]
    arrivals: Sequence[float] | None = None
    limits: Sequence[int] | None = None
    tenants: Sequence[int] | None = None
    priorities: Sequence[int] | None = None
    parents: Sequence[int] | None = None
    thinks: Sequence[float] | None = None
    chains: Sequence[Sequence[int]] | None = None
    chain_block: int = 1
    ttft_slos: Sequence[float] | None = None
    tpot_slos: Sequence[float] | None = None

    def trace(self) -> Trace:
        count = len(self.prompts)
        arrivals = [0.0] * count if self.arrivals is None else self.arrivals
        thinks = [0.0] * count if self.thinks is None else self.thinks
        return Trace(
            np.array(arrivals, dtype=np.float64),
            np.array(self.prompts, dtype=np.int32),
            np.array(self.outputs, dtype=np.int32),
            TraceSource("jobs", "test", rows_read=count),
            tenant=_column(self.tenants),
            priority=_column(self.priorities),
            parent=_column(self.parents),
            ttft_slo=_times(self.ttft_slos),
            tpot_slo=_times(self.tpot_slos),
            think_s=None if self.parents is None else np.array(thinks, dtype=np.float64),
            blocks=None if self.chains is None else prompt_blocks(self.chains, self.chain_block),
        )

    def split(self) -> Outputs:
        tokens = np.array(self.outputs, dtype=np.int32)
        limits = tokens if self.limits is None else np.array(self.limits, dtype=np.int32)
        return Outputs(limits, tokens)


def _column(values: Sequence[int] | None) -> npt.NDArray[np.int64] | None:
    return None if values is None else np.array(values, dtype=np.int64)


def _times(values: Sequence[float] | None) -> npt.NDArray[np.float64] | None:
    return None if values is None else np.array(values, dtype=np.float64)


def prompt_blocks(chains: Sequence[Sequence[int]], block_size: int) -> PromptBlocks:
    """A chain of ids for each request; an empty one says nothing of it."""
    offsets = np.cumsum([0, *map(len, chains)], dtype=np.int64)
    ids = [number for chain in chains for number in chain]
    return PromptBlocks(block_size, offsets, np.array(ids, dtype=np.int64))


class Guess(Predictor):
    """Too short, right or too long, by the request's id."""

    def predict(self, request: Request, output_tokens: int) -> float:
        return max(1.0, output_tokens * (0.3, 1.0, 0.5, 1.7)[request.id % 4])


ALL_MEMORIES = (
    "paged",
    "paged,free_order=back",
    "paged,prefix_caching=true",
    "paged,prefix_caching=true,free_order=back",
    "contiguous",
    "contiguous,reserve=predicted",
    "contiguous,reserve=predicted,compaction=true",
    "contiguous,reserve=predicted,margin=0.2,overrun=preempt",
    "buddy",
    "buddy,reserve=exact",
    "buddy,reserve=exact,overrun=preempt",
    "radix",
    "vattention",
)
"""A memory manager of every kind; `reserve=max` needs a cache for the longest context."""


@dataclass
class Iteration:
    """What one iteration was, by request ids; `scheduled` are (request, tokens, kind)."""

    number: int
    start: float
    scheduled: list[tuple[int, int, str]]
    admitted: list[int]
    preempted: list[int]
    padding: int
    free_blocks: int
    blocks: dict[int, list[int]]
    sampled: list[int] = field(default_factory=list)
    finished: list[int] = field(default_factory=list)
    discarded: list[int] = field(default_factory=list)

    @property
    def tokens(self) -> dict[int, int]:
        """Tokens by request."""
        return {request: tokens for request, tokens, _ in self.scheduled}


class Journal:
    """Observes a run: one `Iteration` a batch."""

    def __init__(self) -> None:
        self.iterations: list[Iteration] = []

    def scheduled(self, scheduler: Scheduler, batch: Batch, arrived: list[Request]) -> None:
        kv_cache = scheduler.kv_cache
        self.iterations.append(
            Iteration(
                batch.iteration,
                batch.decided_at,
                [(entry.request.id, entry.tokens, entry.kind) for entry in batch.expand()],
                [request.id for request in batch.admitted],
                [request.id for request in batch.preempted],
                batch.padding_requests,
                kv_cache.free_blocks,
                {r.id: list(kv_cache.block_table(r)) for r in scheduler.running},
            )
        )

    def completed(
        self, scheduler: Scheduler, completion: Completion, start: float, end: float
    ) -> None:
        iteration = self.iterations[completion.batch.iteration]
        iteration.start = start
        iteration.sampled.extend(r.id for r in completion.sampled())
        iteration.finished.extend(r.id for r in completion.finished)
        iteration.discarded.extend(r.id for r in completion.batch.discarded)


@dataclass(frozen=True)
class Run:
    """A run that came to its end."""

    result: Result
    scheduler: Scheduler
    requests: dict[int, Request]
    iterations: list[Iteration]
    tokens: TokenLog

    def admissions(self) -> list[int]:
        """Everyone admitted, in order."""
        return [request for iteration in self.iterations for request in iteration.admitted]

    def gaps(self, request_id: int) -> list[float]:
        """The times between the tokens of a request, in no particular order."""
        log = self.tokens
        gaps = [s for r, s in zip(log.gap_request, log.gap_s, strict=True) if r == request_id]
        for request, first, last in zip(
            log.span_request, log.span_first, log.span_last, strict=True
        ):
            if request == request_id:
                ends = log.decode_ends[first - 1 : last + 1]
                gaps += [b - a for a, b in pairwise(ends)]
        return gaps


def simulate(
    policy: Policy,
    jobs: Jobs,
    *,
    blocks: int = 1000,
    block_size: int = 4,
    seats: int = 8,
    budget: int | None = 64,
    max_model_len: int = 1000,
    concurrency: int | None = None,
    cost: StepCost = ONE_SECOND,
    predictor: Predictor | None = None,
    check_every: int | None = 1,
    memory: str = "paged",
    decision_lag: int = 0,
    observers: Sequence[Observer] = (),
) -> Run:
    """Run `jobs` to the end, all invariants asserted after every `check_every`-th iteration.

    Every token that an iteration reads is looked up on paper. `observers` look on as well.
    """
    trace = jobs.trace()
    content = Content.of(trace, jobs.split())
    scheduler = Scheduler(
        policy,
        make_kv_cache(memory, blocks, block_size, content, max_model_len),
        max_seqs=seats,
        token_budget=budget,
        max_model_len=max_model_len,
        decision_lag=decision_lag,
        predictor=predictor,
        estimator=cost.seconds,
    )
    delay = 0.0 if predictor is None else predictor.latency
    load = Load(trace, jobs.split(), concurrency=concurrency, delay=delay)
    simulation = Simulation(trace, scheduler, load, cost, check_every=check_every)
    journal = Journal()
    simulation.observe(journal, PaperDevice(content, block_size), *observers)
    simulation.run()
    assert not scheduler.has_work
    assert scheduler.kv_cache.free_blocks == blocks, "blocks are lost"
    assert scheduler.stored_tokens == 0, "tokens are lost"
    record = simulation.record()
    requests = {request.id: request for request in record.released_requests()}
    return Run(build_result(record), scheduler, requests, journal.iterations, record.tokens)
