"""The least sum of latencies of a small instance, by integer programming.

An iteration is a round, memory is in single tokens, and everything is known: which start rounds
minimise the sum of all latencies? Source: arXiv 2502.07115, the hindsight optimum.
"""

from typing import Any, NamedTuple

import numpy as np

from schedsim.errors import ConfigError


class Instance(NamedTuple):
    """Integer arrivals, lengths, and token slots in memory."""

    arrivals: list[int]
    prompts: list[int]
    outputs: list[int]
    memory: int


def draw_instance(rng: np.random.Generator, count: int, online: bool) -> Instance:
    """As in the paper: memory of 30 to 50, prompts of 1 to 5, outputs that fit alone."""
    memory = int(rng.integers(30, 51))
    prompts = rng.integers(1, 6, count)
    outputs = [int(rng.integers(1, memory - prompt + 2)) for prompt in prompts]
    arrivals = np.sort(rng.integers(0, 40, count)) if online else np.zeros(count, dtype=int)
    return Instance((arrivals - arrivals[0]).tolist(), prompts.tolist(), outputs, memory)


def load_solver() -> Any:
    """OR-Tools' CP-SAT.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        from ortools.sat.python import cp_model
    except ModuleNotFoundError:
        raise ConfigError(
            "the optimum is found by OR-Tools, which is not installed; run "
            "pip install 'ortools>=9.10'"
        ) from None
    return cp_model


def least_latency(instance: Instance, known: int, effort: float) -> int | None:
    """The least sum of latencies of all schedules; None if it is not proven within `effort`.

    A 0/1 programme over starts; `known` is the sum of some schedule. None of a schedule that is
    better starts later than `known` less all outputs after its arrival. `effort` is CP-SAT's
    deterministic time, of about a second each, so that the answer does not hang on the machine.

    Raises:
        ConfigError: OR-Tools is not installed.
    """
    cp_model = load_solver()
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
    solver.parameters.max_deterministic_time = effort
    solver.parameters.num_workers = 1
    return int(solver.objective_value) if solver.solve(model) == cp_model.OPTIMAL else None
