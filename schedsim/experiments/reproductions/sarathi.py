"""`sarathi-osdi24`: the tail of the time between tokens, and the capacity under a bound on it."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

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
    ratio,
)
from schedsim.experiments.reproductions.measuring import (
    figures_of,
    highest_rate,
    poisson,
    trace_of,
)
from schedsim.traces.trace import Trace

PAPER = "OSDI'24"
P90 = 1.2815515655446004
"""The standard normal's 90th percentile."""

OTHERS = (
    "which model and data the published factor is of could not be read; vLLM's own capacity, at "
    "which one token in a hundred meets a long prefill, hangs on the lengths and the device"
)


@dataclass(frozen=True, slots=True)
class Lengths:
    """Median and 90th percentile of prompts and outputs, and the most tokens of both, in tokens."""

    name: str
    prompt: tuple[int, int]
    output: tuple[int, int]
    most: int


@dataclass(frozen=True, slots=True)
class Setup:
    """Mistral-7B on one A100; rates in requests/s, bounds on the P99 time between tokens in s.

    A rate is sustained if the bound holds and the median of scheduling delays stays below
    `delay_s`; it is found within `precision`. The first bound is the strict one. `rates` are those
    of the curve, a tuple for each data set.
    """

    model: str = "mistral-7b"
    gpu: str = "a100-80gb"
    seats: int = 128
    context: int = 16_384
    requests: int = 400
    bounds_s: tuple[float, ...] = (0.1, 0.5)
    delay_s: float = 2.0
    precision: float = 0.03
    lengths: tuple[Lengths, ...] = (
        Lengths("sharegpt4", (1730, 5696), (415, 834), 8192),
        Lengths("arxiv", (7059, 12_985), (208, 371), 16_384),
    )
    rates: tuple[tuple[float, ...], ...] = ((1.0, 2.0, 3.0), (0.25, 0.5, 1.0))
    policies: tuple[tuple[str, str], ...] = (
        ("vLLM", "vllm-v0"),
        ("chunk 512", "sarathi,chunk_size=512"),
        ("chunk 2048", "sarathi,chunk_size=2048"),
    )


CLAIMS = (
    Claim(
        "capacity over vLLM at 0.1 s, the larger of both data sets",
        2.6,
        f"{PAPER}, abstract: up to, for Mistral-7B",
        unit="×",
        neutral=1,
        why=OTHERS,
    ),
    Claim(
        "the same, as the paper's text has it for 0.1 s",
        3.5,
        f"{PAPER}, evaluation",
        unit="×",
        read=False,
        neutral=1,
        why=OTHERS,
    ),
)
TAIL = Order("P99 time between tokens", ("chunk 512", "chunk 2048", "vLLM"), PAPER)
FIRST = Order(
    "P99 time to first token",
    ("chunk 2048", "chunk 512"),
    f"{PAPER} (smaller chunks take longer to the first token)",
)


class SarathiOsdi24(Reproduction):
    """Mistral-7B's capacity under bounds on the tail, on both data sets."""

    name: ClassVar[str] = "sarathi-osdi24"
    title: ClassVar[str] = "stall-free batching: the tail of the time between tokens, and capacity"
    source: ClassVar[str] = (
        "Agrawal et al., Taming Throughput-Latency Tradeoff in LLM Inference with Sarathi-Serve, "
        "OSDI'24, arXiv 2403.02310"
    )
    notes: ClassVar[tuple[str, ...]] = (
        "lengths are lognormal with the data sets' medians and 90th percentiles; a pair beyond the "
        "data set's longest is drawn again, so the medians come out lower",
        "the bounds (0.1 s strict, 0.5 s relaxed, median delay below 2 s) and the lengths of arxiv "
        "could not be read in the paper itself",
        "Mistral's sliding window is not modelled; vLLM is `vllm-v0`, prefill first, 128 seats",
        "Yi-34B, LLaMA2-70B and Falcon-180B are left out: pipeline parallelism is not modelled",
    )
    setup = Setup()

    def trials(self, scale: float, seed: int) -> list[Trial]:
        setup = self.setup
        count = at_least(scale * setup.requests, 100)
        trials = [
            self._run(system, policy, lengths, rate, count, seed)
            for lengths, rates in zip(setup.lengths, setup.rates, strict=True)
            for rate in rates
            for system, policy in setup.policies
        ]
        return trials + [
            self._capacity(system, policy, lengths, bound, count, seed)
            for lengths in setup.lengths
            for bound in setup.bounds_s
            for system, policy in setup.policies
        ]

    def figures(self, rows: Sequence[Row]) -> list[Figure]:
        setup = self.setup
        found = []
        for lengths, rates in zip(setup.lengths, setup.rates, strict=True):
            rate = rates[-1]
            at = {
                name: find(rows, figure="curve", data=lengths.name, rate=rate, system=name)
                for name, _ in setup.policies
            }
            where = f", {lengths.name} at {rate:g}/s"
            tails = {name: number(row, "itl_p99_s") for name, row in at.items()}
            firsts = {name: number(row, "ttft_p99_s") for name, row in at.items()}
            found += [TAIL.figure(tails, where), FIRST.figure(firsts, where)]
        gains = [self._gain(rows, lengths.name) for lengths in setup.lengths]
        best = max((gain for gain in gains if gain is not None), default=None)
        found += [claim.figure(best) for claim in CLAIMS]
        return found

    def _gain(self, rows: Sequence[Row], data: str) -> float | None:
        """Capacity with chunks of 512 over vLLM's, under the strict bound."""

        def capacity(system: str) -> float:
            bound = self.setup.bounds_s[0]
            row = find(rows, figure="capacity", data=data, bound_s=bound, system=system)
            return number(row, "sustained_rate")

        return ratio(capacity("chunk 512"), capacity("vLLM"))

    def _run(
        self, system: str, policy: str, lengths: Lengths, rate: float, count: int, seed: int
    ) -> Trial:
        labels: Row = {"figure": "curve", "data": lengths.name, "rate": rate, "system": system}
        return Trial(labels, lambda: self._measure(policy, self._trace(lengths, rate, count, seed)))

    def _capacity(
        self, system: str, policy: str, lengths: Lengths, bound: float, count: int, seed: int
    ) -> Trial:
        def is_borne(rate: float) -> bool:
            row = self._measure(policy, self._trace(lengths, rate, count, seed))
            in_time = number(row, "itl_p99_s") <= bound
            return in_time and number(row, "queue_p50_s") <= self.setup.delay_s

        labels: Row = {
            "figure": "capacity",
            "data": lengths.name,
            "bound_s": bound,
            "system": system,
        }
        return Trial(
            labels,
            lambda: {"sustained_rate": highest_rate(is_borne, 0.2, 12.8, self.setup.precision)},
        )

    def _measure(self, policy: str, trace: Trace) -> Row:
        setup = self.setup
        return figures_of(
            simulate(
                trace,
                policy,
                model=setup.model,
                gpu=setup.gpu,
                max_seqs=setup.seats,
                max_model_len=setup.context,
            )
        )

    def _trace(self, lengths: Lengths, rate: float, count: int, seed: int) -> Trace:
        """The same requests at every rate, only closer together."""
        length_rng, arrival_rng = np.random.default_rng(seed).spawn(2)
        columns = []
        for median, p90 in (lengths.prompt, lengths.output):
            sigma = math.log(p90 / median) / P90
            columns.append(length_rng.lognormal(math.log(median), sigma, 3 * count))
        tokens = np.maximum(np.ceil(np.stack(columns, axis=1)), 1)
        kept = tokens[tokens.sum(axis=1) <= lengths.most][:count]
        return trace_of(lengths.name, poisson(arrival_rng, rate, count), kept[:, 0], kept[:, 1])
