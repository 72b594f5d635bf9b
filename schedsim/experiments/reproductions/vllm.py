"""`vllm-sosp23`: paging against reservation under one scheduler, from light load to overload."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
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

PAPER = "SOSP'23"
LENGTHS = "the law of the data set's lengths is not in the paper, only its means"
FASTER = (
    "by the roofline the engine keeps up at 2 requests/s, so fewer are there at once; the "
    "published number is that of an engine in which requests wait, and is met where they do"
)
MODELS = "the published factor is the largest of three models and two data sets, not OPT-13B's"


@dataclass(frozen=True, slots=True)
class System:
    """A scheduler and its memory; `block_size` in tokens."""

    name: str
    policy: str
    memory: str
    block_size: int


@dataclass(frozen=True, slots=True)
class Lengths:
    """Mean lengths of a data set in tokens (Figure 11)."""

    name: str
    prompt: float
    output: float


@dataclass(frozen=True, slots=True)
class Setup:
    """OPT-13B on one A100, as in Table 1; rates in requests/s, times in seconds.

    `rates` are those of the latency curve, the last of them beyond everybody's capacity. A rate is
    sustained if the mean normalised latency stays below `bearable_s` a token;
    it is found within `precision`.
    """

    model: str = "opt-13b"
    gpu: str = "a100-40gb"
    slots: int = 15_696
    context: int = 2048
    sigma: float = 1.0
    duration_s: float = 600.0
    rates: tuple[float, ...] = (0.5, 1.0, 1.5, 2.0, 2.5, 3.5)
    bearable_s: float = 0.2
    precision: float = 0.03
    sharegpt: Lengths = Lengths("ShareGPT", 161.31, 337.99)
    alpaca: Lengths = Lengths("Alpaca", 19.31, 58.45)
    alpaca_rate: float = 60.0
    alpaca_duration_s: float = 60.0
    systems: tuple[System, ...] = (
        System("Orca (Max)", "vllm-v0", "buddy,reserve=max", 1),
        System("Orca (Pow2)", "vllm-v0", "buddy,reserve=pow2", 1),
        System("Orca (Oracle)", "vllm-v0", "buddy,reserve=exact", 1),
        System("vLLM", "vllm-v0", "paged", 16),
    )
    static: System = System("FasterTransformer", "static,batch_size=7", "paged", 1)


AT_ONCE = {
    "ShareGPT": (
        Claim("Orca (Max)", 7.00, f"{PAPER}, Figure 13a"),
        Claim("Orca (Pow2)", 9.81, f"{PAPER}, Figure 13a", read=False),
        Claim("Orca (Oracle)", 13.62, f"{PAPER}, Figure 13a"),
        Claim("vLLM", 30.42, f"{PAPER}, Figure 13a"),
    ),
    "Alpaca": (
        Claim("Orca (Max)", 7.00, f"{PAPER}, Figure 13b", read=False),
        Claim("Orca (Pow2)", 43.24, f"{PAPER}, Figure 13b", read=False, why=LENGTHS),
        Claim("Orca (Oracle)", 72.75, f"{PAPER}, Figure 13b", read=False, why=LENGTHS),
        Claim("vLLM", 132.44, f"{PAPER}, Figure 13b", read=False, why=LENGTHS),
    ),
}
USED = (
    Claim("Orca (Max)", 20.4, f"{PAPER}, Figure 2", unit=" %"),
    Claim("Orca (Pow2)", 26.8, f"{PAPER}, Figure 2", unit=" %"),
    Claim("Orca (Oracle)", 38.2, f"{PAPER}, Figure 2", unit=" %"),
    Claim("vLLM", 96.3, f"{PAPER}, Figure 2", unit=" %"),
)
AT_TWO = Claim("at once at 2 requests/s: vLLM", 30.42, f"{PAPER}, Figure 13a", why=FASTER)
FACTORS = (
    Claim("at once, vLLM over Orca (Oracle)", 2.2, f"{PAPER}, 6.2", unit="×", neutral=1),
    Claim("at once, vLLM over Orca (Max)", 4.3, f"{PAPER}, 6.2", unit="×", neutral=1),
    Claim("rate, vLLM over Orca (Oracle)", 1.7, f"{PAPER}, 6.2", 2.7, "×", neutral=1),
    Claim("rate, vLLM over Orca (Max)", 2.7, f"{PAPER}, 6.2", 8, "×", neutral=1),
    Claim(
        "rate, vLLM over FasterTransformer, up to",
        22,
        f"{PAPER}, 6.2",
        unit="×",
        neutral=1,
        why=MODELS,
    ),
)
ORDER = Order(
    "sustained rate",
    ("FasterTransformer", "Orca (Max)", "Orca (Pow2)", "Orca (Oracle)", "vLLM"),
    f"{PAPER}, Figure 12",
)


class VLLMSosp23(Reproduction):
    """Figures 2, 12 and 13 of the paper, for OPT-13B."""

    name: ClassVar[str] = "vllm-sosp23"
    title: ClassVar[str] = "paging against Orca's reservations: latency, requests at once, memory"
    source: ClassVar[str] = (
        "Kwon et al., Efficient Memory Management for Large Language Model Serving with "
        "PagedAttention, SOSP'23, arXiv 2309.06180"
    )
    notes: ClassVar[tuple[str, ...]] = (
        "lengths are lognormal (sigma 1) with the data sets' means, a pair beyond the context is "
        "drawn again",
        "traces are 10 minutes of Poisson arrivals (Alpaca: 1), the paper's an hour",
        "Orca is the same scheduler on a buddy allocator with exact lengths known, as the authors "
        "built it",
        "`at once` and `used` are means while requests wait, at the highest rate: what memory "
        "admits, whatever the device's speed",
        "a sustained rate is the highest with a mean normalised latency up to 0.2 s a token; the "
        "paper names no bound",
    )
    setup = Setup()

    def trials(self, scale: float, seed: int) -> list[Trial]:
        setup = self.setup
        span = scale * setup.duration_s
        trials = [
            self._run(system, setup.sharegpt, rate, span, seed)
            for rate in setup.rates
            for system in setup.systems
        ]
        alpaca_span = scale * setup.alpaca_duration_s
        trials += [
            self._run(system, setup.alpaca, setup.alpaca_rate, alpaca_span, seed)
            for system in setup.systems
        ]
        return trials + [
            self._sustained(system, span, seed) for system in (*setup.systems, setup.static)
        ]

    def figures(self, rows: Sequence[Row]) -> list[Figure]:
        setup = self.setup
        beyond = {"ShareGPT": setup.rates[-1], "Alpaca": setup.alpaca_rate}

        def row(data: str, system: str) -> Row:
            return find(rows, figure="curve", data=data, rate=beyond[data], system=system)

        def waiting(data: str, system: str, name: str) -> float | None:
            value = row(data, system)[name]
            return value if isinstance(value, float) else None

        found = []
        for data, claims in AT_ONCE.items():
            for claim in claims:
                figure = claim.figure(waiting(data, claim.name, "requests_at_once_in_line"))
                found.append(_named(figure, f"at once, {data}: {claim.name}"))
        for claim in USED:
            share = waiting("ShareGPT", claim.name, "kv_used_in_line")
            figure = claim.figure(None if share is None else 100 * share)
            found.append(_named(figure, f"slots with tokens: {claim.name}"))
        at_two = find(rows, figure="curve", data="ShareGPT", rate=2.0, system="vLLM")
        found.append(AT_TWO.figure(number(at_two, "requests_at_once")))
        rates = {
            str(row["system"]): number(row, "sustained_rate")
            for row in rows
            if row["figure"] == "sustained"
        }
        found.append(ORDER.figure(rates))
        at_once = {
            system.name: waiting("ShareGPT", system.name, "requests_at_once_in_line")
            for system in setup.systems
        }
        ours = [
            ratio(at_once["vLLM"], at_once["Orca (Oracle)"]),
            ratio(at_once["vLLM"], at_once["Orca (Max)"]),
            *(
                ratio(rates["vLLM"], rates[other])
                for other in ("Orca (Oracle)", "Orca (Max)", "FasterTransformer")
            ),
        ]
        return found + [claim.figure(value) for claim, value in zip(FACTORS, ours, strict=True)]

    def _run(self, system: System, lengths: Lengths, rate: float, span: float, seed: int) -> Trial:
        labels: Row = {
            "figure": "curve",
            "data": lengths.name,
            "rate": rate,
            "system": system.name,
        }
        return Trial(labels, lambda: self._measure(system, self._trace(lengths, rate, span, seed)))

    def _sustained(self, system: System, span: float, seed: int) -> Trial:
        lengths = self.setup.sharegpt

        def is_borne(rate: float) -> bool:
            row = self._measure(system, self._trace(lengths, rate, span, seed))
            return number(row, "normalized_latency_s") <= self.setup.bearable_s

        labels: Row = {"figure": "sustained", "data": lengths.name, "system": system.name}
        return Trial(
            labels,
            lambda: {"sustained_rate": highest_rate(is_borne, 0.1, 6.4, self.setup.precision)},
        )

    def _measure(self, system: System, trace: Trace) -> Row:
        setup = self.setup
        return figures_of(
            simulate(
                trace,
                system.policy,
                model=setup.model,
                gpu=setup.gpu,
                memory=system.memory,
                predictor="oracle",
                blocks=setup.slots // system.block_size,
                block_size=system.block_size,
                max_model_len=setup.context,
            )
        )

    def _trace(self, lengths: Lengths, rate: float, span: float, seed: int) -> Trace:
        """The same requests at every rate, only closer together."""
        setup = self.setup
        count = at_least(rate * span, 20)
        length_rng, arrival_rng = np.random.default_rng(seed).spawn(2)
        pairs = length_rng.lognormal(-(setup.sigma**2) / 2, setup.sigma, (2 * count + 40, 2))
        tokens = np.maximum(np.ceil(pairs * (lengths.prompt, lengths.output)), 1)
        kept = tokens[tokens.sum(axis=1) <= setup.context][:count]
        arrivals = poisson(arrival_rng, rate, count)
        return trace_of(lengths.name, arrivals, kept[:, 0], kept[:, 1])


def _named(figure: Figure, name: str) -> Figure:
    return replace(figure, name=name)
