"""The speed of an engine that always has work: of the same work, and by how much slower steps."""

from typing import Any

import pytest

from schedsim.costs import make_step_cost
from schedsim.experiments.runs import run_policy
from schedsim.experiments.setup import prepare_trace
from schedsim.experiments.validation.saturation import (
    FIRST,
    KINDS,
    LAST,
    SATURATED,
    Tables,
    capacity_of,
    speeds_of,
)
from schedsim.experiments.validation.scaled_cost import scaled
from tests.validation.runs import LINEAR, settings, small_trace

POLICIES = ("vllm", "static,batch_size=4")


def served(factor: float = 1.0, requests: int = 60, **given: Any) -> Tables:
    """A run of requests that are all there at once; iterations take `factor` times as long."""
    chosen = settings(**{"arrivals": "burst", "max_seqs": 4, **given})
    cost = scaled(make_step_cost(LINEAR), factor)
    trace = prepare_trace(small_trace(requests), chosen)
    result = run_policy(trace, chosen, cost=cost).result
    return Tables(result.summary, result.steps_table)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("factor", [0.9, 1.01, 1.5])
def test_who_is_slower_takes_longer_by_just_as_much(policy: str, factor: float) -> None:
    as_it_is, slower = (speeds_of(served(by, policy=policy)) for by in (1.0, factor))
    assert set(as_it_is) == set(KINDS)
    for name, speed in as_it_is.items():
        assert slower[name].tokens_per_s == pytest.approx(speed.tokens_per_s / factor, rel=1e-9)
        assert slower[name].in_line == pytest.approx(speed.in_line, rel=1e-9)
        assert speed.in_line >= SATURATED


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("blocks", [30, 100])
def test_the_speed_is_that_of_a_walk_through_the_iterations(policy: str, blocks: int) -> None:
    run = served(policy=policy, blocks=blocks, max_seqs=8)
    assert (run.summary["preemptions"] > 0) is (policy == "vllm" and blocks == 30)
    output = run.summary["output_tokens"]
    useful = {KINDS[0]: run.summary["prompt_tokens"] + output, KINDS[1]: output}
    for name, speed in speeds_of(run).items():
        begin, end = (moment(run, name, share) for share in (FIRST, LAST))
        assert speed.window.start == pytest.approx(begin, rel=1e-9)
        assert speed.window.end == pytest.approx(end, rel=1e-9)
        expected = (LAST - FIRST) * useful[name] / (end - begin)
        assert speed.tokens_per_s == pytest.approx(expected, rel=1e-9)


def moment(run: Tables, name: str, share: float) -> float:
    """When `share` of a run's work was done."""
    rows = run.steps.to_pylist()
    work = [
        row["prefill_tokens"] + row["decode_requests"] if name == KINDS[0] else row["sampled"]
        for row in rows
    ]
    wanted, done = share * sum(work), 0.0
    for row, more in zip(rows, work, strict=True):
        if more and done + more >= wanted:
            start, end = row["start"], row["end"][-1]
            return float(start + (end - start) * (wanted - done) / more)
        done += more
    raise AssertionError("a share of the work is no more than all of it")


def test_an_engine_with_no_line_is_not_saturated() -> None:
    run = served(max_seqs=60, blocks=4000)
    speeds = speeds_of(run)
    assert {speed.in_line for speed in speeds.values()} == {0.0}
    found = capacity_of([run, run], run, 0.015)
    assert found is not None
    assert not found.is_saturated
    assert found.agreements == {}


def test_a_capacity_is_off_by_what_its_steps_are() -> None:
    measured, simulated = served(), served(1.01)
    found = capacity_of([measured, measured], simulated, 0.015)
    assert found is not None
    assert found.is_saturated
    for agreed in found.agreements.values():
        assert agreed.error == pytest.approx(1 / 1.01 - 1, rel=1e-9)
        assert agreed.place == "margin"
