"""The tables of docs/vllm-run.md: a real run of vLLM 0.19, simulated from its kernel tables.

python -m tests.benchmarks.vllm_run [FOLDER]

FOLDER is that of the recorded run, by default ../shared/oracles/vllm_runs/RTX4090_Llama-3.1-8B. No
setting is fitted to the run: the engine's are those of its config.json, times are those of the
kernel tables, requests arrive when the engine queued them.
"""

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from schedsim.config import RunSettings, make_settings
from schedsim.costs import StepCost, load_gpu, load_model, make_step_cost
from schedsim.experiments.setup import prepare_run
from schedsim.results import build_result
from schedsim.scheduler import Batch, Completion, Scheduler
from schedsim.scheduler.batch import BatchShape
from schedsim.traces.trace import Trace, TraceSource
from tests.benchmarks.vllm_record import (
    Floats,
    Recorded,
    engine_times,
    read_run,
    shared_prompts,
)


class StepTime(NamedTuple):
    """A step-time model by its spec, every time multiplied by `factor`."""

    spec: str
    factor: float = 1.0


PADDED = "tables:{tables},graphs={graphs}"
STEP_TIMES = {
    "tables": StepTime(PADDED),
    "tables, not padded": StepTime("tables:{tables}"),
    "tables, skew corrected": StepTime(PADDED + ",skew=true"),
    "tables, steps 1 % shorter": StepTime(PADDED, 0.99),
    "tables, steps 1 % longer": StepTime(PADDED, 1.01),
    "roofline": StepTime("roofline"),
}
"""The first is the simulation of the run, the others say what its parts and errors are worth."""

OTHER = "LLMServingSim, as recorded"
METRICS = ("e2e_s", "ttft_s", "tpot_s")
SATURATED_S = 1.0
"""Requests whose measured TTFT is below this came before the engine was saturated."""


def settings_of(run: Recorded, step_time: str) -> RunSettings:
    """The engine of config.json; vLLM counts one block that it never uses."""
    engine, cache = run.config["engine_kwargs"], run.config["kv_cache"]
    assert run.config["vllm_version"].startswith("0.19.")
    assert run.config["scheduler_config"]["async_scheduling"]
    assert cache["enable_prefix_caching"]
    seats, budget = engine["max_num_seqs"], engine["max_num_batched_tokens"]
    return make_settings(
        policy="vllm@0.19",  # prefix caching and asynchronous scheduling are its defaults
        model="llama-3.1-8b",
        gpu="rtx4090",
        step_time=step_time.format(tables=run.tables, graphs=min(2 * seats, budget, 512)),
        blocks=cache["num_gpu_blocks"] - 1,
        block_size=cache["block_size"],
        max_seqs=seats,
        token_budget=budget,
        max_model_len=engine["max_model_len"],
    )


def trace_of(run: Recorded) -> Trace:
    """The requests as the engine queued them; it was told how many tokens to generate."""
    rows = run.requests
    outputs = rows["output_toks"].to_numpy(np.int32)
    return Trace(
        (rows["queued_s"] - rows["queued_s"].min()).to_numpy(),
        rows["input_toks"].to_numpy(np.int32),
        outputs,
        TraceSource("measured_and_sim.csv", "recorded", rows_read=len(rows)),
        max_output_tokens=outputs,
    )


@dataclass(slots=True)
class Sampler:
    """An observer that sees what vLLM's statistics see: the books right after an iteration."""

    moments: list[float] = field(default_factory=list)
    states: list[tuple[int, int, float]] = field(default_factory=list)

    def scheduled(self, scheduler: Scheduler, batch: Batch, arrived: list[Any]) -> None:
        pass

    def completed(
        self, scheduler: Scheduler, completion: Completion, start: float, end: float
    ) -> None:
        cache = scheduler.kv_cache
        used = 100.0 * (1.0 - cache.free_blocks / cache.total_blocks)
        self.moments.append(end)
        self.states.append((scheduler.num_running, len(scheduler.queue), used))

    def at(self, moments: Floats) -> Floats:
        """Running, waiting and KV use in per cent after the last iteration before each moment."""
        places = np.searchsorted(self.moments, moments) - 1
        states = np.array([*self.states, (0, 0, 0.0)])  # the last one stands for "before any"
        return np.asarray(states[places])


@dataclass(frozen=True, slots=True)
class Compared:
    """A simulation of the run beside it: error of each request by metric, and the whole.

    `errors` are relative, `early` says who came before saturation. `series` is the mean distance of
    running and waiting requests and of KV use (in points) from the recorded series.
    """

    errors: dict[str, Floats]
    early: npt.NDArray[np.bool_]
    means: dict[str, float]
    makespan: float
    preemptions: int | None
    series: tuple[float, float, float] | None

    def quantiles(self, metric: str, early: bool | None = None) -> list[float]:
        """50th, 90th and 99th percentile and the largest of a metric's absolute error."""
        errors = np.abs(self.errors[metric])
        if early is not None:
            errors = errors[self.early == early]
        return [float(np.quantile(errors, q)) for q in (0.5, 0.9, 0.99, 1.0)]


class Scaled:
    """A step-time model with every time multiplied."""

    def __init__(self, cost: StepCost, factor: float) -> None:
        self._cost, self._factor = cost, factor

    def seconds(self, shape: BatchShape) -> float:
        return self._factor * self._cost.seconds(shape)

    def describe(self) -> dict[str, Any]:
        return {"name": "scaled", "factor": self._factor, "of": self._cost.describe()}


def compare(run: Recorded, step_time: StepTime) -> Compared:
    """Simulate the run under a step-time model."""
    settings = settings_of(run, step_time.spec)
    cost = make_step_cost(settings.step_time, load_model(settings.model), load_gpu(settings.gpu))
    if step_time.factor != 1.0:
        cost = Scaled(cost, step_time.factor)
    prepared = prepare_run(trace_of(run), settings, cost=cost)
    sampler = Sampler()
    prepared.backend.observe(sampler)
    assert prepared.backend.run()
    result = build_result(prepared.backend.record())
    ours = result.requests
    assert (ours["status"] == "finished").all()
    recorded = run.series[["running", "waiting", "kv_cache_pct"]].to_numpy()
    apart = np.abs(sampler.at(engine_times(run)) - recorded).mean(axis=0)
    return _compared(
        run.requests,
        {metric: ours[metric].to_numpy() for metric in METRICS},
        float(ours["finished"].max()),
        result.summary["preemptions"],
        (float(apart[0]), float(apart[1]), float(apart[2])),
    )


def compare_other(run: Recorded) -> Compared:
    """The other simulator's figures, which count from its own arrivals."""
    rows = run.requests
    theirs = {
        "e2e_s": rows["llmservingsim_latency_s"].to_numpy(),
        "ttft_s": rows["llmservingsim_ttft_s"].to_numpy(),
        "tpot_s": rows["llmservingsim_tpot_s"].to_numpy(),
    }
    end = float((rows["queued_s"] + rows["llmservingsim_latency_s"]).max())
    return _compared(rows, theirs, end, None, None)


def _compared(
    rows: pd.DataFrame,
    ours: dict[str, Floats],
    end: float,
    preemptions: int | None,
    series: tuple[float, float, float] | None,
) -> Compared:
    measured = {metric: rows[metric].to_numpy() for metric in METRICS}
    return Compared(
        {metric: ours[metric] / measured[metric] - 1.0 for metric in METRICS},
        measured["ttft_s"] < SATURATED_S,
        {metric: float(ours[metric].mean() / measured[metric].mean() - 1.0) for metric in METRICS},
        end / float(rows["last_token_s"].max()) - 1.0,
        preemptions,
        series,
    )


def percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def report(run: Recorded) -> list[str]:
    """The lines of the tables of the page."""
    found = {name: compare(run, step_time) for name, step_time in STEP_TIMES.items()}
    found[OTHER] = compare_other(run)
    early = f"first {int(found[OTHER].early.sum())}"
    lines = ["| step time | requests | E2E p50 | p90 | TTFT p50 | p90 | TPOT p50 | p90 |"]
    lines.append("|---|---|" + 6 * "---|")
    for name, compared in found.items():
        for who, which in (("all", None), (early, True)):
            halves = [compared.quantiles(metric, which)[:2] for metric in METRICS]
            errors = " | ".join(percent(error) for pair in halves for error in pair)
            lines.append(f"| {name} | {who} | {errors} |")
    lines += ["", "| step time | mean E2E | TTFT | TPOT | makespan | preemptions |"]
    lines.append("|---|" + 5 * "---|")
    for name, compared in found.items():
        means = [*(compared.means[metric] for metric in METRICS), compared.makespan]
        told = " | ".join(f"{100 * mean:+.2f} %" for mean in means)
        count = "-" if compared.preemptions is None else compared.preemptions
        lines.append(f"| {name} | {told} | {count} |")
    lines += ["", "| step time | running | waiting | KV use |", "|---|---|---|---|"]
    for name, compared in found.items():
        if compared.series is not None:
            running, waiting, used = compared.series
            lines.append(f"| {name} | {running:.2f} | {waiting:.2f} | {used:.2f} points |")
    most = max(shared_prompts(run), key=lambda sharing: sharing.needed - sharing.used)
    return [
        *lines,
        "",
        f"In {len(shared_prompts(run))} seconds prompts share blocks; in second {most.second} the "
        f"requests need at least {most.needed:,} blocks and use {most.used:,}.",
    ]


if __name__ == "__main__":
    print("\n".join(report(read_run(*map(Path, sys.argv[1:2])))))
