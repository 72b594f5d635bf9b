"""What every policy of one family must stand: its own invariants after every decision."""

import math
from collections.abc import Iterable, Sequence
from typing import Protocol

from hypothesis import strategies as st

from schedsim.policies import Policy
from schedsim.predictors import Oracle
from schedsim.request import Request, Status
from schedsim.scheduler import Batch, Completion, Scheduler
from tests.core.harness import Jobs, Run, simulate

MEMORIES = ("paged", "paged,prefix_caching=true", "paged,host_blocks=12")


class Checked(Protocol):
    """A policy with invariants about the waiting line."""

    def check(self, waiting: Iterable[Request]) -> None: ...


class Watch:
    """Observes a run and checks the policy whenever it has decided or something has ended."""

    def __init__(self, policy: Checked) -> None:
        self.policy = policy

    def scheduled(self, scheduler: Scheduler, batch: Batch, arrived: list[Request]) -> None:
        self.policy.check(scheduler.waiting)

    def completed(
        self, scheduler: Scheduler, completion: Completion, start: float, end: float
    ) -> None:
        self.policy.check(scheduler.waiting)


@st.composite
def random_jobs(draw: st.DrawFn) -> Jobs:
    """A dozen requests of a few tenants, some with common beginnings; 13 blocks of 4 hold each."""
    count = draw(st.integers(1, 12))

    def column(values: st.SearchStrategy[int]) -> Sequence[int]:
        return draw(st.lists(values, min_size=count, max_size=count))

    prompts, outputs = column(st.integers(1, 30)), column(st.integers(1, 22))
    targets = st.sampled_from([1.0, 3.0, 8.0, math.nan])
    begins = column(st.integers(0, 30))
    return Jobs(
        prompts,
        outputs,
        sorted(column(st.sampled_from([0, 0, 1, 3, 7, 12]))),
        limits=[
            output + spare for output, spare in zip(outputs, column(st.integers(0, 1)), strict=True)
        ],
        tenants=column(st.integers(0, 2)),
        priorities=column(st.integers(0, 2)),
        chains=[[0] * min(begin, prompt) for begin, prompt in zip(begins, prompts, strict=True)],
        ttft_slos=draw(st.lists(targets, min_size=count, max_size=count)),
        tpot_slos=draw(st.lists(targets, min_size=count, max_size=count)),
    )


def hold_up(policy: Policy, jobs: Jobs, memory: str, lag: int, budget: int, seats: int) -> Run:
    """Run to the end with every invariant of the core, of memory and of the policy itself."""
    observers = [Watch(policy)] if hasattr(policy, "check") else []
    run = simulate(
        policy,
        jobs,
        blocks=13,
        seats=seats,
        budget=budget,
        memory=memory,
        decision_lag=lag,
        predictor=Oracle(),
        observers=observers,
    )
    assert all(request.status is Status.FINISHED for request in run.requests.values())
    return run
