"""Policies for fairness and targets: all of them end, lose nothing and keep their own books."""

from hypothesis import given, settings
from hypothesis import strategies as st

from schedsim.policies.loading import make_policy
from tests.core.harness import Jobs
from tests.policies.watch import MEMORIES, hold_up, random_jobs

SPECS = (
    "vtc",
    "vtc,charge=predicted,weights=0:2/1:0.5",
    "vtc,reserve=output,lift=false",
    "dlpm",
    "dlpm,quantum=7,match_limit=3",
    "edf",
    "edf,order=slack",
    "edf,preemptive=true",
    "edf,preemptive=true,preemption=swap",
    "qoserve",
    "qoserve,alpha_ms=0,relegation=false",
    "andes,horizon=3",
    "andes,horizon=3,interval=1,preemption_cap=3,preemption=recompute,window=2",
)


@settings(max_examples=2 * settings.default.max_examples)
@given(
    st.sampled_from(SPECS),
    random_jobs(),
    st.sampled_from(MEMORIES),
    st.sampled_from([0, 1]),
    st.sampled_from([5, 16, 64]),
    st.integers(1, 6),
)
def test_everything_is_served_under_pressure_whatever_comes(
    spec: str, jobs: Jobs, memory: str, lag: int, budget: int, seats: int
) -> None:
    run = hold_up(make_policy(spec), jobs, memory, lag, budget, seats)
    tokens = sum(jobs.outputs)
    preemptions = sum(request.preemptions for request in run.requests.values())
    assert preemptions <= seats * (tokens + len(jobs.outputs)), "a storm of preemptions"
