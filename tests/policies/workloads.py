"""Random small workloads on which every policy must come to its end, whatever the memory."""

from typing import Any, NamedTuple

from hypothesis import strategies as st

from schedsim.policies import Policy
from schedsim.predictors import Oracle
from schedsim.request import Status
from tests.core.harness import Jobs, Run, simulate


class Workload(NamedTuple):
    """Requests, and the engine that they meet."""

    jobs: Jobs
    engine: dict[str, Any]


@st.composite
def workloads(
    draw: st.DrawFn, memories: tuple[str, ...] = ("paged", "paged,prefix_caching=true")
) -> Workload:
    """Up to twelve requests that share beginnings, in a cache that is often too small."""
    count = draw(st.integers(1, 12))

    def numbers(low: int, high: int) -> list[int]:
        return draw(st.lists(st.integers(low, high), min_size=count, max_size=count))

    prompts, outputs = numbers(1, 24), numbers(1, 16)
    limits = [tokens + slack for tokens, slack in zip(outputs, numbers(0, 6), strict=True)]
    chains = [[family] * prompt for family, prompt in zip(numbers(0, 2), prompts, strict=True)]
    jobs = Jobs(
        prompts,
        outputs,
        sorted(numbers(0, 12)),
        limits,
        priorities=numbers(0, 2),
        chains=chains,
    )
    block_size = draw(st.sampled_from([1, 2, 4]))
    return Workload(
        jobs,
        {
            "blocks": -(-draw(st.integers(40, 120)) // block_size),
            "block_size": block_size,
            "seats": draw(st.integers(1, 6)),
            "budget": draw(st.integers(46, 120)),
            "max_model_len": 60,
            "memory": draw(st.sampled_from(memories)),
            "decision_lag": draw(st.integers(0, 1)),
        },
    )


def run_to_the_end(policy: Policy, workload: Workload, oracle: bool = False) -> Run:
    """Every request finishes with all its tokens, or was rejected at its arrival."""
    jobs, engine = workload
    run = simulate(policy, jobs, predictor=Oracle() if oracle else None, **engine)
    for number, request in run.requests.items():
        if request.status is Status.REJECTED:
            assert request.admitted is None
            continue
        assert request.status is Status.FINISHED
        assert request.num_generated_tokens == jobs.outputs[number]
    return run


def preemptions(run: Run) -> int:
    """Of all requests together."""
    return sum(request.preemptions for request in run.requests.values())
