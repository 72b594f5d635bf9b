"""`mcsf-2025`: how far from the hindsight optimum, on instances that can be solved."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from schedsim.costs import LinearCost
from schedsim.experiments.api import simulate
from schedsim.experiments.reproductions.base import (
    Claim,
    Figure,
    Order,
    Reproduction,
    Row,
    Trial,
    at_least,
    number,
)
from schedsim.experiments.reproductions.measuring import trace_of
from schedsim.experiments.reproductions.optimum import (
    Instance,
    draw_instance,
    least_latency,
    load_solver,
)

PAPER = "arXiv 2502.07115v5"
ROUND = LinearCost(1000.0, 0.0, 0.0, 0.0, 0.0)
"""An iteration takes a second, whatever is in it."""

SMALL = (
    "instances have 5 or 6 requests here and 40 to 60 there, solved by Gurobi: one decision weighs "
    "more among few"
)


@dataclass(frozen=True, slots=True)
class Setup:
    """The paper's synthetic instances, but for their size.

    `count` instances of each size and arrival model; `effort` is the solver's limit for each, in
    its deterministic time of about a second.
    """

    sizes: tuple[int, ...] = (5, 6)
    count: int = 12
    effort: float = 2.0
    policies: tuple[tuple[str, str], ...] = (
        ("MC-SF", "mcsf"),
        ("FCFS with the same check", "composed,order=fcfs,admit=peak"),
    )


ARRIVALS = {"all at once": False, "online": True}
CLAIMS = {
    "all at once": (
        Claim("above the optimum, mean", 0.5, PAPER, unit=" %", neutral=0, why=SMALL),
        Claim("above the optimum, worst", 7.4, PAPER, unit=" %", neutral=0, why=SMALL),
        Claim("instances solved to the optimum", 57, PAPER, unit=" %", why=SMALL),
    ),
    "online": (
        Claim("above the optimum, mean", 4.7, PAPER, unit=" %", neutral=0, why=SMALL),
        Claim("above the optimum, worst", 22.7, PAPER, unit=" %", neutral=0, why=SMALL),
    ),
}
ORDER = Order(
    "sum of latencies", ("MC-SF", "FCFS with the same check"), f"{PAPER} (there of conversations)"
)


class MCSF2025(Reproduction):
    """The ratio to the optimum, all at once and online."""

    name: ClassVar[str] = "mcsf-2025"
    title: ClassVar[str] = "memory-constrained shortest first against the hindsight optimum"
    source: ClassVar[str] = (
        "Jaillet et al., Online Scheduling for LLM Inference with KV Cache Constraints, " + PAPER
    )
    notes: ClassVar[tuple[str, ...]] = (
        "memory of 30 to 50 tokens, prompts of 1 to 5, as there; online arrivals are uniform "
        "over 40 rounds",
        "instances whose optimum is not proven within the solver's limit are left out: the larger "
        "and harder ones",
        "needs OR-Tools (pip install 'ortools>=9.10'); the conversations of LMSYS are not here",
    )
    setup = Setup()

    def trials(self, scale: float, seed: int) -> list[Trial]:
        load_solver()
        setup = self.setup
        count = at_least(scale * setup.count, 2)
        trials = []
        for arrivals, online in ARRIVALS.items():
            rng = np.random.default_rng(np.random.SeedSequence([seed, online]))
            for size in setup.sizes * count:
                instance = draw_instance(rng, size, online)
                labels: Row = {"arrivals": arrivals, "requests": float(size)}
                trials.append(Trial(labels, partial(self._measure, instance)))
        return trials

    def figures(self, rows: Sequence[Row]) -> list[Figure]:
        found = []
        for arrivals, claims in CLAIMS.items():
            solved = [row for row in rows if row["arrivals"] == arrivals and row["optimum"]]
            ratios = [number(row, "MC-SF") / number(row, "optimum") for row in solved]
            ours: tuple[float | None, ...] = (None,) * 3
            if ratios:
                mean, worst = float(np.mean(ratios)), max(ratios)
                share = sum(ratio == 1.0 for ratio in ratios) / len(ratios)
                ours = (100 * (mean - 1), 100 * (worst - 1), 100 * share)
            where = f", {arrivals} ({len(solved)} instances)"
            found += [
                claim.figure(value, where) for claim, value in zip(claims, ours, strict=False)
            ]
            totals = {
                name: sum(number(row, name) for row in rows if row["arrivals"] == arrivals)
                for name, _ in self.setup.policies
            }
            found.append(ORDER.figure(totals, f", {arrivals}"))
        return found

    def _measure(self, instance: Instance) -> Row:
        sums = {name: total_latency(instance, policy) for name, policy in self.setup.policies}
        best = least_latency(instance, int(sums["MC-SF"]), self.setup.effort)
        return {**sums, "optimum": None if best is None else float(best)}


def total_latency(instance: Instance, policy: str) -> float:
    """The sum of latencies of a policy that knows every length, in rounds."""
    count = len(instance.prompts)
    trace = trace_of(
        "instance", instance.arrivals, instance.prompts, instance.outputs, limits=[99] * count
    )
    result = simulate(
        trace,
        policy,
        cost=ROUND,
        predictor="oracle",
        blocks=instance.memory,
        block_size=1,
        max_model_len=100,
    )
    assert result.summary["requests"]["finished"] == count, "an instance's requests fit alone"
    return float(round(result.requests["e2e_s"].sum()))
