"""`mcsf` against the hindsight optimum of small instances, by integer programming.

An iteration is a second, memory is in single tokens, and everything is known: which start times
minimise the sum of all latencies? Source of the setting: arXiv 2502.07115, whose instances have 40
to 60 requests; up to 8 are solved here in seconds.
"""

from typing import Any, NamedTuple

import numpy as np
import pytest

from schedsim.policies import MCSF
from schedsim.predictors import Oracle
from tests.core.harness import Jobs, simulate

cp_model: Any = pytest.importorskip("ortools.sat.python.cp_model")


class Instance(NamedTuple):
    """Integer arrivals, lengths, and token slots in memory."""

    arrivals: list[int]
    prompts: list[int]
    outputs: list[int]
    memory: int


def draw(rng: np.random.Generator, count: int, online: bool) -> Instance:
    """As in the paper: memory of 30 to 50, prompts of 1 to 5, outputs that fit alone."""
    memory = int(rng.integers(30, 51))
    prompts = rng.integers(1, 6, count)
    outputs = [int(rng.integers(1, memory - prompt + 2)) for prompt in prompts]
    arrivals = np.sort(rng.integers(0, 40, count)) if online else np.zeros(count, dtype=int)
    return Instance((arrivals - arrivals[0]).tolist(), prompts.tolist(), outputs, memory)


def total_latency(instance: Instance) -> int:
    """The sum of latencies under `mcsf` with exact lengths."""
    jobs = Jobs(
        instance.prompts,
        instance.outputs,
        instance.arrivals,
        limits=[99] * len(instance.outputs),
    )
    run = simulate(MCSF(), jobs, blocks=instance.memory, block_size=1, seats=99, predictor=Oracle())
    assert not any(request.preemptions for request in run.requests.values())
    return round(sum((r.finished or 0.0) - r.arrival for r in run.requests.values()))


def least_latency(instance: Instance, known: int, seconds: float) -> int | None:
    """The least sum of latencies of all schedules; None if it is not proven in time.

    A 0/1 programme over starts; `known` is the sum of some schedule. None of a schedule that is
    better starts later than `known` less all outputs after its arrival.
    """
    arrivals, prompts, outputs, memory = instance
    slack = known - sum(outputs)
    model = cp_model.CpModel()
    horizon = max(arrivals) + slack + max(outputs) + 1
    used: list[list[Any]] = [[] for _ in range(horizon + 1)]
    latencies = []
    for arrival, prompt, output in zip(arrivals, prompts, outputs, strict=True):
        starts = []
        for start in range(arrival, arrival + slack + 1):
            begins = model.new_bool_var("")
            starts.append(begins)
            latencies.append((start + output - arrival) * begins)
            for round_ in range(start, start + output):
                used[round_].append((prompt + round_ - start) * begins)
        model.add_exactly_one(starts)
    for terms in used:
        if terms:
            model.add(sum(terms) <= memory)
    model.minimize(sum(latencies))
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = 2
    return int(solver.objective_value) if solver.solve(model) == cp_model.OPTIMAL else None


def ratios(sizes: list[int], online: bool, seed: int, seconds: float) -> list[float]:
    """Latency over the optimum of the instances that were solved."""
    rng = np.random.default_rng(seed)
    found = []
    for count in sizes:
        instance = draw(rng, count, online)
        total = total_latency(instance)
        best = least_latency(instance, total, seconds)
        if best is not None:
            assert best <= total, "the programme misses a schedule"
            found.append(total / best)
    return found


@pytest.mark.parametrize("online", [False, True])
def test_mcsf_is_near_the_optimum_of_tiny_instances(online: bool) -> None:
    found = ratios([4] * 6 + [5] * 2, online, 21, 20.0)
    assert len(found) >= 7
    assert np.mean(found) <= (1.10 if online else 1.03)


@pytest.mark.slow
@pytest.mark.parametrize("online", [False, True])
def test_mcsf_is_near_the_optimum(online: bool) -> None:
    found = ratios([5, 6, 7, 8] * 6, online, 22, 60.0)
    print(f"online={online}: {len(found)} solved, mean {np.mean(found):.4f}, max {max(found):.4f}")
    assert len(found) >= 12, "the solver's time is that of the machine"
    assert np.mean(found) <= (1.10 if online else 1.03)
