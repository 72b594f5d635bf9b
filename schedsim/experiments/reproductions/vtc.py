"""`vtc-osdi24`: the gap of service between two tenants that both ask for too much."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from schedsim.config import make_settings
from schedsim.costs import GPUSpec, RooflineCost, load_model
from schedsim.experiments.reproductions.base import (
    Claim,
    Figure,
    Reproduction,
    Row,
    Trial,
    find,
    number,
    ratio,
)
from schedsim.experiments.reproductions.measuring import trace_of
from schedsim.experiments.setup import prepare_run
from schedsim.request import Request
from schedsim.scheduler import Batch, Completion, Scheduler
from schedsim.traces.trace import Trace

PAPER = "OSDI'24"
ARTIFACT = "Ying1123/VTC-artifact at 182003e, suite `overload`"
PACE = "the gap under first come, first served grows with the service, which is the device's speed"


@dataclass(frozen=True, slots=True)
class Setup:
    """Llama-7B on an A10G with 10,000 slots; each tenant sends evenly, in requests/s.

    The prices are those of service: a prompt token and an output token. The GPU is NVIDIA's A10 by
    its data sheet, of which the A10G is a variant.
    """

    model: str = "llama-2-7b"
    gpu_bf16_tflops: float = 125.0
    gpu_memory_mib: int = 23_028
    gpu_memory_gb_per_s: float = 600.0
    gpu_link_gb_per_s: float = 32.0
    slots: int = 10_000
    rates: tuple[float, ...] = (1.5, 3.0)
    prompt_tokens: int = 256
    output_tokens: int = 256
    duration_s: float = 500.0
    input_price: int = 1
    output_price: int = 2
    policies: tuple[tuple[str, str], ...] = (
        ("FCFS", "composed,order=fcfs,admit=reserve"),
        ("VTC", "vtc,reserve=output"),
    )


CLAIMS = (
    Claim("FCFS: gap after 500 s", 300_000, f"{PAPER}, figure", why=PACE),
    Claim("FCFS: gap after the whole over half the time (linear)", 2, PAPER, unit="×", neutral=1),
    Claim("VTC: gap after the whole over half the time (flat)", 1, PAPER, unit="×"),
    Claim(
        "VTC: gap, at most twice U",
        0,
        f"{PAPER}, theorem: 2U = 2 · max(256, 2 · 10,000)",
        high=40_000,
    ),
    Claim("throughput, VTC over FCFS", 1, f"{PAPER} (777 to 781 tok/s)", unit="×"),
)


class VTCOsdi24(Reproduction):
    """Two tenants beyond the capacity, one of which sends twice as much."""

    name: ClassVar[str] = "vtc-osdi24"
    title: ClassVar[str] = "fair shares: the gap of service between two tenants in overload"
    source: ClassVar[str] = (
        "Sheng et al., Fairness in Serving Large Language Models, OSDI'24, arXiv 2401.00588; "
        + ARTIFACT
    )
    notes: ClassVar[tuple[str, ...]] = (
        "service is a token of a prompt at its first admission and two for every output token",
        "both schedulers reserve prompt and true output at admission and preempt nobody",
        "the run is 500 s, the artifact's suite 360 s; its real trace (largest gap 368 against "
        "760) is not here",
    )
    setup = Setup()

    def trials(self, scale: float, seed: int) -> list[Trial]:
        span = max(scale * self.setup.duration_s, 20.0)
        return [
            Trial({"system": name}, partial(self._measure, policy, span))
            for name, policy in self.setup.policies
        ]

    def figures(self, rows: Sequence[Row]) -> list[Figure]:
        fcfs, vtc = find(rows, system="FCFS"), find(rows, system="VTC")
        ours = (
            number(fcfs, "gap"),
            ratio(number(fcfs, "gap"), number(fcfs, "gap_at_half")),
            ratio(number(vtc, "gap"), number(vtc, "gap_at_half")),
            number(vtc, "gap"),
            ratio(number(vtc, "tokens_per_s"), number(fcfs, "tokens_per_s")),
        )
        return [claim.figure(value) for claim, value in zip(CLAIMS, ours, strict=True)]

    def _measure(self, policy: str, span: float) -> Row:
        setup = self.setup
        gpu = GPUSpec(
            name="a10g",
            bf16_tflops=setup.gpu_bf16_tflops,
            memory_mib=setup.gpu_memory_mib,
            memory_gb_per_s=setup.gpu_memory_gb_per_s,
            link_gb_per_s=setup.gpu_link_gb_per_s,
            host_gb_per_s=setup.gpu_link_gb_per_s,
        )
        settings = make_settings(
            policy=policy,
            model=setup.model,
            blocks=setup.slots // 16,
            max_output="factor:1",
        )
        prepared = prepare_run(
            self._trace(span), settings, cost=RooflineCost(load_model(setup.model), gpu)
        )
        service = _Service(setup.input_price, setup.output_price)
        prepared.backend.observe(service)
        prepared.backend.run()
        return {
            "gap": service.gap(span),
            "gap_at_half": service.gap(span / 2),
            "tokens_per_s": service.tokens(span) / span,
        }

    def _trace(self, span: float) -> Trace:
        setup = self.setup
        times = [np.arange(0.0, span, 1.0 / rate) for rate in setup.rates]
        arrivals = np.concatenate(times)
        tenants = np.repeat(np.arange(len(times)), [len(times_of) for times_of in times])
        order = np.argsort(arrivals, kind="stable")
        count = len(arrivals)
        return trace_of(
            "overload",
            arrivals[order],
            np.full(count, setup.prompt_tokens),
            np.full(count, setup.output_tokens),
            tenant=tenants[order],
        )


class _Service:
    """Observes what two tenants were served, in prices, and all tokens computed for them."""

    def __init__(self, input_price: int, output_price: int) -> None:
        self._prices = (input_price, output_price)
        self._served = [0, 0]
        self._tokens = 0
        self._times: list[float] = []
        self._gaps: list[int] = []
        self._totals: list[int] = []

    def scheduled(self, scheduler: Scheduler, batch: Batch, arrived: list[Request]) -> None:
        """Charge the prompts of those admitted."""
        for request in batch.admitted:
            if not request.preemptions:
                self._served[request.tenant] += self._prices[0] * request.prompt_tokens
                self._tokens += request.prompt_tokens

    def completed(
        self, scheduler: Scheduler, completion: Completion, start: float, end: float
    ) -> None:
        """Charge the tokens emitted."""
        for request in completion.sampled():
            self._served[request.tenant] += self._prices[1]
            self._tokens += 1
        self._times.append(end)
        self._gaps.append(abs(self._served[1] - self._served[0]))
        self._totals.append(self._tokens)

    def gap(self, until: float) -> float:
        """The largest difference of service up to a time."""
        return float(max(self._gaps[: bisect_right(self._times, until)], default=0))

    def tokens(self, until: float) -> float:
        """Tokens served up to a time."""
        return float(self._totals[bisect_right(self._times, until) - 1])
