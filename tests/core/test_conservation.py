"""Random traces, capacities and policies: everything ends, and nothing is lost or made up."""

from dataclasses import dataclass, field, replace

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from schedsim.content import Content
from schedsim.costs.linear import LinearCost
from schedsim.load import Load
from schedsim.memory import PagedKVCache, make_kv_cache
from schedsim.output_limit import Outputs
from schedsim.policies import (
    POLICIES,
    VLLM,
    VLLM011,
    VLLM019,
    VLLM033,
    MultiBin,
    Policy,
    Sarathi,
    Static,
    VLLMv0,
)
from schedsim.request import Request, Status
from schedsim.results import Result, build_result
from schedsim.scheduler import Batch, Completion, Scheduler
from schedsim.simulator import Simulation
from schedsim.traces.trace import Trace, TraceSource
from tests.core.harness import ALL_MEMORIES, Guess, prompt_blocks
from tests.core.paper_device import PaperDevice
from tests.policies.strategies import REFERENCE_STRATEGIES, VLLM_V0

COST = LinearCost(5.0, 0.05, 0.03, 3.5e-6, 4e-5)


@dataclass(frozen=True)
class Case:
    """A trace with the sizes of the engine that serves it."""

    arrivals: tuple[float, ...]
    prompts: tuple[int, ...]
    outputs: tuple[int, ...]
    parents: tuple[int, ...]
    blocks: int
    block_size: int
    seats: int
    budget: int
    concurrency: int | None
    chains: tuple[tuple[int, ...], ...] | None = None
    memory: str = "paged"
    decision_lag: int = 0
    slack: int = 0
    priorities: tuple[int, ...] | None = None

    def outputs_of(self, trace: Trace) -> Outputs:
        """Output limits that every second request stays below by `slack`."""
        slack = np.where(np.arange(len(trace)) % 2, self.slack, 0).astype(np.int32)
        return Outputs(trace.output_tokens + slack, trace.output_tokens)

    def trace(self) -> Trace:
        count = len(self.arrivals)
        return Trace(
            np.sort(np.array(self.arrivals)),
            np.array(self.prompts[:count], dtype=np.int32),
            np.array(self.outputs[:count], dtype=np.int32),
            TraceSource("random", "test", rows_read=count),
            parent=np.array([min(p, i - 1) for i, p in enumerate(self.parents[:count])]),
            think_s=np.full(count, 0.25),
            priority=None if self.priorities is None else np.array(self.priorities[:count]),
            blocks=None if self.chains is None else prompt_blocks(self.cut_chains(), 2),
        )

    def cut_chains(self) -> list[tuple[int, ...]]:
        """The chains as far as the prompts reach."""
        assert self.chains is not None
        return [
            chain[: -(-prompt // 2)]
            for chain, prompt in zip(self.chains, self.prompts, strict=False)
        ]


CHAIN = st.lists(st.integers(0, 1), max_size=30).map(tuple)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    count = draw(st.integers(1, 12))
    lengths = st.lists(st.integers(1, 60), min_size=count, max_size=count)
    return Case(
        (0.0, *draw(st.lists(st.floats(0, 2), min_size=count - 1, max_size=count - 1))),
        tuple(draw(lengths)),
        tuple(draw(lengths)),
        tuple(draw(st.lists(st.integers(-1, 3), min_size=count, max_size=count))),
        draw(st.integers(2, 40)),
        draw(st.sampled_from([1, 4, 16])),
        draw(st.integers(1, 6)),
        draw(st.integers(1, 64)),
        draw(st.none() | st.integers(1, 4)),
        draw(st.none() | st.tuples(*[CHAIN] * count)),
        draw(st.sampled_from(ALL_MEMORIES)),
        draw(st.integers(0, 1)),
        draw(st.sampled_from([0, 0, 5])),
        draw(st.none() | st.tuples(*[st.integers(0, 2)] * count)),
    )


def versions_of_vllm(version: type[VLLM]) -> st.SearchStrategy[Policy]:
    """Every parameter at random; 0.11 knows no prompts in one piece."""
    return st.builds(
        version,
        policy=st.sampled_from(["fcfs", "priority"]),
        whole_sequence=st.booleans(),
        watermark=st.sampled_from([0.0, 0.1]),
        long_prefill_threshold=st.sampled_from([0, 1, 7]),
        adaptive_threshold=st.booleans(),
        chunked_prefill=st.just(True) if version is VLLM011 else st.booleans(),
        prefill_interval=st.sampled_from([1, 2, 5]),
    )


POLICY_STRATEGIES: dict[str, st.SearchStrategy[Policy]] = {
    **{version.name: versions_of_vllm(version) for version in (VLLM, VLLM033, VLLM019, VLLM011)},
    "vllm-v0": VLLM_V0,
    "sarathi": st.builds(Sarathi, st.sampled_from([1, 8, 64]), st.sampled_from([0.0, 0.01, 0.2])),
    "static": st.builds(
        Static,
        st.integers(1, 5),
        st.sampled_from([0.0, 0.5]),
        reserve=st.sampled_from(["limit", "prompt"]),
        order=st.sampled_from(["arrival", "predicted"]),
        prefill_tokens=st.sampled_from([0, 1, 9, 40]),
    ),
    "multi-bin": st.builds(
        MultiBin,
        st.integers(1, 5),
        bins=st.integers(1, 3),
        reserve=st.sampled_from(["limit", "prompt"]),
        prefill_tokens=st.sampled_from([0, 9]),
    ),
    **REFERENCE_STRATEGIES,
}


@dataclass
class Watch:
    """Looks at every batch: seats, budget, arrival before run, one place at a time."""

    case: Case
    policy: Policy
    computed: int = 0
    in_vain: int = 0
    emitted: dict[int, int] = field(default_factory=dict)

    def scheduled(self, scheduler: Scheduler, batch: Batch, arrived: list[Request]) -> None:
        entries = batch.expand()
        assert len({entry.request.id for entry in entries}) == len(entries)
        assert scheduler.num_running <= self.case.seats
        assert all(entry.request.arrival <= batch.decided_at for entry in entries)
        tokens = sum(entry.tokens for entry in entries)
        assert tokens == batch.prefill_tokens + batch.decode_requests
        self.computed += tokens
        if isinstance(self.policy, VLLM):
            assert tokens <= self.case.budget
            assert not (batch.preempted and batch.admitted)
        if isinstance(self.policy, Sarathi):
            assert batch.prefill_tokens <= max(0, self.policy.chunk_size - batch.decode_requests)
        if isinstance(self.policy, VLLMv0) and not self.policy.chunked:
            assert not (batch.prefills and batch.runs_decodes)
        chunks = {chunk.request.id for chunk in batch.prefills}
        decodes = [entry.request for entry in entries if entry.request.id not in chunks]
        assert batch.decode_requests == len(decodes)
        contexts = [request.num_computed_tokens for request in decodes]
        assert batch.decode_context == sum(contexts)
        assert batch.longest_context == max(contexts, default=0)

    def completed(
        self, scheduler: Scheduler, completion: Completion, start: float, end: float
    ) -> None:
        self.in_vain += len(completion.batch.discarded)
        for request in completion.sampled():
            self.emitted[request.id] = self.emitted.get(request.id, 0) + 1


def simulate(case: Case, policy: Policy) -> tuple[Result, list[Request], Watch]:
    trace = case.trace()
    outputs = case.outputs_of(trace)
    content = Content.of(trace, outputs)
    scheduler = Scheduler(
        policy,
        make_kv_cache(case.memory, case.blocks, case.block_size, content, 200),
        max_seqs=case.seats,
        token_budget=case.budget,
        max_model_len=200,
        decision_lag=case.decision_lag,
        predictor=Guess(),
        estimator=COST.seconds,
    )
    watch = Watch(case, policy)
    load = Load(trace, outputs, concurrency=case.concurrency)
    simulation = Simulation(trace, scheduler, load, COST, check_every=1)
    simulation.observe(watch, PaperDevice(content, case.block_size))
    simulation.run()
    assert scheduler.kv_cache.free_blocks == case.blocks, "blocks are lost"
    assert not scheduler.has_work
    record = simulation.record()
    return build_result(record), record.released_requests(), watch


PRESSURE = Case(tuple([0.0] * 8), (9,) * 8, (30,) * 8, (-1,) * 8, 12, 4, 6, 16, None)
TWINS = replace(PRESSURE, chains=((1, 2, 3, 4),) * 8, memory="paged,prefix_caching=true")


@given(case=cases(), data=st.data(), name=st.sampled_from(sorted(POLICIES)))
@example(case=PRESSURE, data=None, name="vllm")
@example(case=PRESSURE, data=None, name="vllm-v0")
@example(case=PRESSURE, data=None, name="sarathi")
@example(case=PRESSURE, data=None, name="static")
@example(case=TWINS, data=None, name="vllm")
@example(case=TWINS, data=None, name="vllm-v0")
@example(case=TWINS, data=None, name="sarathi")
@example(case=TWINS, data=None, name="static")
@example(case=replace(PRESSURE, memory="contiguous,reserve=predicted"), data=None, name="vllm")
@example(case=replace(PRESSURE, memory="buddy,reserve=exact"), data=None, name="sarathi")
@example(case=replace(TWINS, memory="radix"), data=None, name="vllm")
def test_tokens_blocks_and_requests_are_conserved(
    case: Case, data: st.DataObject | None, name: str
) -> None:
    policy = (
        POLICIES[name]()
        if data is None
        else data.draw(POLICY_STRATEGIES.get(name, st.builds(POLICIES[name])))
    )
    result, requests, watch = simulate(case, policy)
    trace = case.trace()
    assert [request.id for request in requests] == list(range(len(trace)))
    done = [request for request in requests if request.status is Status.FINISHED]
    assert all(r.status is Status.REJECTED and r.reason for r in requests if r not in done)
    for request in done:
        target = int(trace.output_tokens[request.id])
        assert watch.emitted[request.id] == request.num_generated_tokens == target
        assert request.arrival <= request.admitted < request.first_token <= request.finished
    ideal = sum(r.prompt_tokens + r.num_generated_tokens - 1 for r in done)
    recomputed = sum(request.recomputed_tokens for request in done)
    cached = sum(request.cached_tokens for request in done)
    assert watch.computed == ideal + recomputed - cached + watch.in_vain
    assert not watch.in_vain or (case.decision_lag and case.slack)
    assert min(r.recomputed_tokens for r in done or requests) >= 0
    assert "prefix" in case.memory or case.memory == "radix" or not cached
    assert not any(r.recomputed_tokens and not r.preemptions for r in done)
    counts = result.summary["requests"]
    assert counts["finished"] + counts["rejected"] == counts["kept"] == len(trace)


@given(case=cases(), name=st.sampled_from(sorted(POLICIES)))
def test_the_same_run_twice_gives_the_same_tables(case: Case, name: str) -> None:
    first, _, _ = simulate(case, POLICIES[name]())
    second, _, _ = simulate(case, POLICIES[name]())
    assert first.requests_table.equals(second.requests_table)
    assert first.steps_table.equals(second.steps_table)
    assert first.summary == second.summary


@given(case=cases())
def test_a_policy_written_with_fine_verbs_equals_the_coarse_one(case: Case) -> None:
    """`vllm` with single `run` and `admit` calls decides what its coarse verbs decide."""
    coarse, _, _ = simulate(case, VLLM())
    fine, _, _ = simulate(case, FineVLLM())
    assert fine.requests_table.equals(coarse.requests_table)
    assert fine.steps_table.equals(coarse.steps_table)


class FineVLLM(VLLM):
    """vLLM's scheduler as a level-0 policy, request by request."""

    def schedule(self, step) -> None:  # type: ignore[no-untyped-def]
        for request in step.running:
            if step.tokens_left <= 0:
                break
            if request.status is Status.RUNNING:
                step.run(request, min(max(1, request.num_tokens_left), step.tokens_left))
        while not step.preempted and step.seats and step.tokens_left > 0:
            request = step.first_waiting
            if request is None or self.gate(request, 0, step).value != "admit":
                break
            # Memory may have enough blocks and yet no room for them in one piece.
            if not step.admit(request, min(request.num_known_tokens, step.tokens_left)):
                break


def test_shuffled_blocks_are_all_there_and_no_neighbours() -> None:
    cache = PagedKVCache(100, 16)
    cache.shuffle_free(np.random.default_rng(1))
    cache.check()
    request = Request(0, 0.0, 1600, 1)
    assert cache.reserve(request, 1600)
    table = np.array(cache.block_table(request))
    assert sorted(table) == list(range(1, 101))
    assert np.mean(np.abs(np.diff(table)) == 1) < 0.1
