"""A policy that decides at random in every hook: whatever it does, the books stay right."""

from collections import Counter
from collections.abc import Hashable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.policies import Gate, Policy, PreemptMode, Release
from schedsim.request import Request, Status
from schedsim.scheduler import Step
from tests.core.harness import ALL_MEMORIES, Guess, Jobs, Run, simulate


class Dice(Policy):
    """Draws every answer and every plan until `until`, then leaves all to the defaults."""

    def __init__(self, seed: int, until: float, arrival_order: bool, static: bool) -> None:
        self.rng = np.random.default_rng(seed)
        self.until = until
        self.running_order = "arrival" if arrival_order else "admission"
        self.static = static
        self.tokens: Counter[int] = Counter()
        self.preempted: Counter[int] = Counter()

    def often(self, step: Step, chance: float) -> bool:
        return step.now < self.until and float(self.rng.random()) < chance

    def one_of(self, requests: list[Request]) -> Request:
        return requests[int(self.rng.integers(len(requests)))]

    def schedule(self, step: Step) -> None:
        self.needs_free_block = self.often(step, 0.2)
        self.admit_after_preempt = self.often(step, 0.5)
        if self.often(step, 0.5):
            for _ in range(int(self.rng.integers(1, 5))):
                self.random_verb(step)
        else:
            super().schedule(step)

    def random_verb(self, step: Step) -> None:
        verb = int(self.rng.integers(8))
        if verb < 4:
            (step.run_running, step.run_decodes, step.run_prefills, step.admit_waiting)[verb]()
        elif verb == 4:
            self.run_some(step)
        elif verb == 5 and step.num_waiting and step.seats:
            request = self.one_of(step.waiting)
            step.admit(
                request,
                int(self.rng.integers(1, request.num_known_tokens + 1)),
                int(self.rng.integers(0, 30)),
            )
        elif verb == 6 and step.running:
            step.preempt(self.one_of(step.running))
        elif verb == 7 and step.num_waiting:
            step.rekey(self.one_of(step.waiting))

    def run_some(self, step: Step) -> None:
        if step._runs_decodes:
            return
        planned = {chunk.request.id for chunk in step.chunks} | step._walked
        for request in step.running:
            runs = request.status is Status.RUNNING and request.id not in planned
            if runs and self.rng.random() < 0.5:
                left = max(1, request.num_tokens_left)
                step.run(request, int(self.rng.integers(1, left + 1)))

    def accept(self, request: Request, step: Step) -> bool:
        return not self.often(step, 0.05)

    def group(self, request: Request) -> Hashable:
        return request.id % 3

    def group_key(self, group: Any) -> Any:
        return int(self.rng.integers(3))

    def key(self, request: Request) -> Any:
        return int(self.rng.integers(4))

    def gate(self, request: Request, tokens: int, step: Step) -> Gate:
        if self.often(step, 0.03):
            step.reject(self.one_of(step.waiting), "bad luck")
        answers = (Gate.SKIP, Gate.STOP)
        return answers[int(self.rng.integers(2))] if self.often(step, 0.4) else Gate.ADMIT

    def budget(self, step: Step) -> int:
        return int(self.rng.integers(0, 12)) if self.often(step, 0.5) else step.token_budget

    def chunk(self, request: Request, tokens: int, step: Step) -> int:
        if self.often(step, 0.5):
            return int(self.rng.integers(0, tokens + 1))
        return min(tokens, max(0, step.tokens_left))

    def reservation(self, request: Request, tokens: int) -> int:
        return tokens + int(self.rng.integers(0, 3))

    def victim(self, needy: Request, step: Step) -> Request | None:
        if self.often(step, 0.3):
            return None
        return self.one_of(step.running) if self.often(step, 0.7) else step.last_running()

    def mode(self, victim: Request, step: Step) -> PreemptMode:
        return (PreemptMode.SWAP, PreemptMode.RECOMPUTE)[int(self.rng.integers(2))]

    def displace(self, request: Request, step: Step) -> Request | None:
        return self.one_of(step.running) if step.running and self.often(step, 0.4) else None

    def release(self, request: Request) -> Release:
        return Release.BATCH_END if self.static else Release.IMMEDIATE

    def wake_at(self, step: Step) -> float | None:
        return step.now + 0.5

    def on_tokens(self, request: Request, tokens: int, step: Step) -> None:
        self.tokens[request.id] += tokens

    def on_preempt(self, request: Request, step: Step) -> None:
        self.preempted[request.id] += 1


MEMORIES = [
    f"paged,prefix_caching={caching},host_blocks={host}"
    for caching in ("false", "true")
    for host in (0, 5, 40)
]
MEMORIES += [
    f"{memory},host_blocks={host}"
    for memory in ALL_MEMORIES
    if memory != "radix" and "prefix" not in memory
    for host in (0, 40)
]
MEMORIES.append("radix")
CHAIN = st.one_of(st.just([0] * 20), st.lists(st.integers(0, 1), max_size=20))
CHAINS = st.lists(CHAIN, min_size=10, max_size=10)
LENGTHS = st.lists(st.integers(1, 20), min_size=1, max_size=10)


@given(
    prompts=LENGTHS,
    outputs=st.lists(st.integers(1, 20), min_size=10, max_size=10),
    arrivals=st.lists(st.floats(0, 8), min_size=10, max_size=10),
    blocks=st.integers(11, 30),
    block_size=st.integers(1, 5),
    seats=st.integers(1, 6),
    budget=st.integers(1, 40),
    concurrency=st.none() | st.integers(1, 4),
    chains=st.none() | CHAINS,
    memory=st.sampled_from(MEMORIES),
    decision_lag=st.integers(0, 1),
    slack=st.integers(0, 2),
    seed=st.integers(0, 2**32),
    flags=st.tuples(st.booleans(), st.booleans()),
)
def test_no_decision_breaks_the_books(
    prompts: list[int],
    outputs: list[int],
    arrivals: list[float],
    blocks: int,
    block_size: int,
    seats: int,
    budget: int,
    concurrency: int | None,
    chains: list[list[int]] | None,
    memory: str,
    decision_lag: int,
    slack: int,
    seed: int,
    flags: tuple[bool, bool],
) -> None:
    count = len(prompts)
    jobs = Jobs(
        prompts,
        outputs[:count],
        sorted(arrivals[:count]),
        [tokens + index % 3 * slack for index, tokens in enumerate(outputs[:count])],
        parents=[index - 1 if index % 3 == 2 else -1 for index in range(count)],
        thinks=[0.75] * count,
        chains=chains and [chain[:prompt] for chain, prompt in zip(chains, prompts, strict=False)],
    )
    policy = Dice(seed, 60.0, *flags)
    run = simulate(
        policy,
        jobs,
        blocks=blocks,
        block_size=block_size,
        seats=seats,
        budget=budget,
        concurrency=concurrency,
        memory=memory,
        decision_lag=decision_lag,
        predictor=Guess(),
    )
    check(run, jobs, policy)


def check(run: Run, jobs: Jobs, policy: Dice) -> None:
    assert sorted(run.requests) == list(range(len(jobs.prompts)))
    assert [i.number for i in run.iterations] == list(range(len(run.iterations)))
    sampled = Counter(request for i in run.iterations for request in i.sampled)
    preempted = Counter(request for i in run.iterations for request in i.preempted)
    assert sampled == policy.tokens
    in_vain = [
        request
        for iteration in run.iterations
        for request in iteration.discarded
        if run.requests[request].status is not Status.REJECTED
    ]
    assert len(set(in_vain)) == len(in_vain)
    assert run.scheduler.decision_lag or not in_vain
    limits = jobs.split().limits
    assert all(limits[request] > jobs.outputs[request] for request in in_vain)
    assert preempted == policy.preempted
    computed = sum(tokens for i in run.iterations for _, tokens, _ in i.scheduled)
    expected = len(in_vain)
    for request in run.requests.values():
        assert request.status in (Status.FINISHED, Status.REJECTED)
        assert request.preemptions == preempted[request.id]
        emitted = request.num_generated_tokens
        assert emitted == sampled[request.id]
        gaps = run.gaps(request.id)
        assert len(gaps) == max(0, emitted - 1)
        assert all(gap > 0 for gap in gaps)
        if request.status is Status.FINISHED:
            assert emitted == jobs.outputs[request.id]
            assert request.first_token is not None
            assert request.first_token + sum(gaps) == pytest.approx(request.finished)
            expected += request.prompt_tokens + emitted - 1
        expected += request.recomputed_tokens - request.cached_tokens
        assert min(request.recomputed_tokens, request.cached_tokens) >= 0
    assert computed == expected
