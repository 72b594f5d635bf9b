"""Random loads under pressure, the same for every policy of this folder, and what must hold."""

from dataclasses import dataclass

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from schedsim.policies import Policy
from schedsim.predictors import make_predictor
from schedsim.request import Status
from tests.core.harness import Jobs, Run, simulate

MEMORIES = ("paged", "paged,prefix_caching=true", "paged,host_blocks=8", "paged,host_blocks=500")
PREDICTORS = ("none", "oracle", "lognormal,sigma=1", "rank,tau=0.3")


THIRD = settings(max_examples=max(1, settings.default.max_examples // 3))
"""A third of the profile's examples: there is one such test for each policy."""


@dataclass(frozen=True)
class Load:
    """Requests with the sizes of the engine that serves them."""

    arrivals: tuple[int, ...]
    prompts: tuple[int, ...]
    outputs: tuple[int, ...]
    slack: int
    blocks: int
    seats: int
    budget: int
    memory: str
    decision_lag: int
    predictor: str

    def jobs(self) -> Jobs:
        """Limits lie above the outputs of every second request; prompts share beginnings."""
        return Jobs(
            self.prompts,
            self.outputs,
            sorted(self.arrivals),
            limits=[n + self.slack * (i % 2) for i, n in enumerate(self.outputs)],
            tenants=[i % 3 for i in range(len(self.prompts))],
            priorities=[i % 4 for i in range(len(self.prompts))],
            chains=[(n % 2,) * min(n, 10) for n in self.prompts],
        )


@st.composite
def loads(draw: st.DrawFn) -> Load:
    count = draw(st.integers(1, 14))
    lengths = st.lists(st.integers(1, 40), min_size=count, max_size=count).map(tuple)
    return Load(
        tuple(draw(st.lists(st.integers(0, 60), min_size=count, max_size=count))),
        draw(lengths),
        draw(lengths),
        draw(st.sampled_from([0, 7])),
        draw(st.integers(22, 50)),
        draw(st.integers(1, 5)),
        draw(st.integers(1, 60)),
        draw(st.sampled_from(MEMORIES)),
        draw(st.integers(0, 1)),
        draw(st.sampled_from(PREDICTORS)),
    )


def run_under_pressure(policy: Policy, load: Load) -> Run:
    """Everybody finishes, computed once plus what was recomputed, and the policy's books hold."""
    run = simulate(
        policy,
        load.jobs(),
        blocks=load.blocks,
        seats=load.seats,
        budget=load.budget,
        memory=load.memory,
        decision_lag=load.decision_lag,
        predictor=make_predictor(load.predictor, np.random.default_rng(1), load.outputs),
    )
    requests = list(run.requests.values())
    assert all(request.status is Status.FINISHED for request in requests)
    assert [r.num_generated_tokens for r in requests] == list(load.outputs)
    computed = sum(sum(iteration.tokens.values()) for iteration in run.iterations)
    ideal = sum(r.prompt_tokens + r.num_generated_tokens - 1 for r in requests)
    recomputed = sum(r.recomputed_tokens for r in requests)
    cached = sum(r.cached_tokens for r in requests)
    in_vain = sum(len(iteration.discarded) for iteration in run.iterations)
    assert computed == ideal + recomputed - cached + in_vain
    return run
