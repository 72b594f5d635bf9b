"""`anyscale-2023`: static against continuous batching against paging, in one burst."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from schedsim.costs import RooflineCost, load_gpu, load_model
from schedsim.costs.roofline import RooflineAssumptions
from schedsim.experiments.api import simulate
from schedsim.experiments.reproductions.base import (
    Claim,
    Figure,
    Order,
    Reproduction,
    Row,
    Trial,
    at_least,
    find,
    number,
)
from schedsim.experiments.reproductions.measuring import figures_of, trace_of
from schedsim.traces.trace import Trace

BLOG = "Anyscale blog, June 2023"
SCRIPTS = "anyscale/llm-continuous-batching-benchmarks at ce08a14"
KERNELS = (
    "here every system has the same good kernels and host code, there each had its own of 2023, so "
    "a published factor between two systems holds their kernels, too"
)
POOL = (
    "here both have the same kernels, and what is left is the pool (8,100 slots against 15,696) "
    "and reserving what is not there yet"
)


@dataclass(frozen=True, slots=True)
class System:
    """A serving system of the benchmark: its policy, memory and pool.

    `pools` are KV slots for each cap, `budgets` tokens an iteration (None: the policy's own).
    `knows_length` says that a request's output limit is its true length, as the benchmark's client
    sent it.
    """

    name: str
    policy: str
    pools: tuple[int, ...]
    budgets: tuple[int | None, ...] = (None,) * 4
    overhead_ms: float = 1.0
    knows_length: bool = False


@dataclass(frozen=True, slots=True)
class Setup:
    """The benchmark's sizes, lengths in tokens; `static_batch` is one a cap."""

    model: str = "opt-13b"
    gpu: str = "a100-40gb"
    requests: int = 1000
    prompt_tokens: int = 512
    mean_output: int = 128
    caps: tuple[int, ...] = (32, 128, 512, 1536)
    static_batch: tuple[int, ...] = (16, 12, 8, 4)
    systems: tuple[System, ...] = (
        System("naive static", "static", (15_696,) * 4, overhead_ms=95.0),
        System("static", "static", (15_696,) * 4),
        System("continuous", "tgi", (8700, 7500, 8100, 8100), knows_length=True),
        System("paged", "vllm-v0", (15_696,) * 4, budgets=(8700, 7500, 8100, 8100)),
    )


ORDER = Order("throughput at cap 1536", ("naive static", "static", "continuous", "paged"), BLOG)
CLAIMS = (
    Claim("naive static at cap 1536", 81, BLOG, unit=" tok/s", why="fitted to it"),
    Claim("static over naive static", 4, BLOG, unit="×", neutral=1, why=KERNELS),
    Claim("continuous over naive static", 8, BLOG, unit="×", neutral=1, why=KERNELS),
    Claim("paged over naive static", 23, BLOG, unit="×", neutral=1, why=KERNELS),
    Claim("continuous over static", 2, BLOG + " (8 / 4)", unit="×", neutral=1, why=KERNELS),
    Claim("paged over static", 5.75, BLOG + " (23 / 4)", unit="×", neutral=1, why=KERNELS),
    Claim("paged over continuous", 2.9, BLOG + " (23 / 8)", unit="×", neutral=1, why=POOL),
    Claim("paged at cap 1536", 1863, BLOG + " (23 · 81)", unit=" tok/s", why=KERNELS),
    Claim(
        "continuous over static at cap 32",
        1,
        BLOG,
        unit="×",
        read=False,
        why="outputs up to 32 tokens still differ, and prompts are most of the work",
    ),
)


class Anyscale2023(Reproduction):
    """The blog's throughput benchmark, with the sizes of its scripts."""

    name: ClassVar[str] = "anyscale-2023"
    title: ClassVar[str] = "static, continuous and paged serving of one burst (4, 8 and 23 times)"
    source: ClassVar[str] = f"{BLOG}: How continuous batching enables 23x throughput; {SCRIPTS}"
    notes: ClassVar[tuple[str, ...]] = (
        "throughput counts prompt and output tokens, as the benchmark's scripts do",
        "naive static is the same engine with 95 ms of host time an iteration, fitted to the "
        "published 81 tok/s at cap 1536: what it says at other caps and of others is not fitted",
        "the benchmark's clients of TGI sent the true length as limit, so `continuous` knows it "
        "and reserves exactly; its pool is the scripts' max_batch_total_tokens",
        "`paged` has the 15.7 thousand slots of OPT-13B on that GPU by vLLM's paper, Table 1",
    )
    setup = Setup()

    def trials(self, scale: float, seed: int) -> list[Trial]:
        setup = self.setup
        trials = []
        for place, cap in enumerate(setup.caps):
            trace = self._trace(cap, at_least(scale * setup.requests, 20), seed)
            trials += [self._trial(trace, place, system) for system in setup.systems]
        return trials

    def figures(self, rows: Sequence[Row]) -> list[Figure]:
        def rate(system: str, cap: int) -> float:
            return number(find(rows, system=system, cap=cap), "total_tokens_per_s")

        last, first = self.setup.caps[-1], self.setup.caps[0]
        by_name = {system.name: rate(system.name, last) for system in self.setup.systems}
        naive, static, continuous, paged = by_name.values()
        ours = (
            naive,
            static / naive,
            continuous / naive,
            paged / naive,
            continuous / static,
            paged / static,
            paged / continuous,
            paged,
            rate("continuous", first) / rate("static", first),
        )
        found = [claim.figure(value) for claim, value in zip(CLAIMS, ours, strict=True)]
        return [ORDER.figure(by_name), *found]

    def _trace(self, cap: int, count: int, seed: int) -> Trace:
        """A burst; outputs above the cap are drawn again, as the scripts do."""
        rng = np.random.default_rng(np.random.SeedSequence([seed, cap]))
        outputs: Any = np.empty(0)
        while len(outputs) < count:
            drawn = np.maximum(np.rint(rng.exponential(self.setup.mean_output, count)), 1)
            outputs = np.concatenate((outputs, drawn[drawn <= cap]))
        prompts = np.full(count, self.setup.prompt_tokens)
        return trace_of("burst", np.zeros(count), prompts, outputs[:count], limits=[cap] * count)

    def _trial(self, trace: Trace, place: int, system: System) -> Trial:
        setup = self.setup
        policy = system.policy
        if policy == "static":
            policy += f",batch_size={setup.static_batch[place]}"
        assumptions = RooflineAssumptions(overhead_ms=system.overhead_ms)
        cost = RooflineCost(load_model(setup.model), load_gpu(setup.gpu), assumptions=assumptions)

        def measure() -> Row:
            result = simulate(
                trace,
                policy,
                cost=cost,
                model=setup.model,
                gpu=setup.gpu,
                blocks=system.pools[place] // 16,
                token_budget=system.budgets[place],
                max_output="factor:1" if system.knows_length else None,
            )
            return figures_of(result)

        return Trial({"system": system.name, "cap": setup.caps[place]}, measure)
