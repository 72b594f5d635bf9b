"""`validate`: a measured run against its simulation, and where the difference comes from."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from schedsim.config import RunSettings, make_settings
from schedsim.costs import FittedCost, PartedCost, StepCost, load_gpu, load_model, make_step_cost
from schedsim.errors import ConfigError, ReplayError, ResultError, TraceError
from schedsim.experiments.calibration import by_kind, error_figures
from schedsim.experiments.iterations import Iterations, iterations_of
from schedsim.experiments.runs import Outcome, RunOptions, run_policy
from schedsim.experiments.setup import own_block_size, prepare_trace
from schedsim.results.decision_file import DecisionFile
from schedsim.results.difference import Comparison, compare_decisions
from schedsim.results.stored_run import StoredRun
from schedsim.results.summary import SCHEMA_VERSION
from schedsim.traces.trace import Trace

REPLAYED, SIMULATED = "replayed", "simulated"
"""Folders of the two simulations, below that of the validation."""

LATENCIES = ("ttft_s", "tpot_s", "itl_s", "e2e_s")
STATISTICS = ("mean", "p50", "p99")

METRICS: dict[str, tuple[str, ...]] = {
    "makespan_s": ("makespan_s",),
    "requests_per_s": ("throughput", "whole", "requests_per_s"),
    "output_tokens_per_s": ("throughput", "whole", "output_tokens_per_s"),
    "total_tokens_per_s": ("throughput", "whole", "total_tokens_per_s"),
    **{
        f"{name}.{statistic}": ("latency", "whole", name, statistic)
        for name in LATENCIES
        for statistic in STATISTICS
    },
    "preemptions": ("preemptions",),
    "batch_size": ("batch_size", "requests_time_weighted"),
    "memory_used": ("memory", "used"),
    "memory_reserved": ("memory", "reserved"),
}
"""Where the compared figures stand in a summary."""


@dataclass(frozen=True, slots=True)
class Replay:
    """The run simulated with its own times: what differs is an error of the logic, not of time.

    `comparison` is None where the run has no decision record; then only the sizes of its batches
    were compared. `error` says in which iteration they differ. `summary` is that of the replay.
    """

    comparison: Comparison | None
    error: str | None
    summary: dict[str, Any]

    @property
    def same(self) -> bool:
        """Whether nothing differs, as far as could be compared."""
        return self.error is None and (self.comparison is None or self.comparison.same)


@dataclass(frozen=True, slots=True)
class Validation:
    """What `validate` found; `as_json` documents it."""

    run: StoredRun
    cost: StepCost
    replay: Replay
    divergence: Comparison | None
    simulated: Outcome
    metrics: dict[str, dict[str, float | None]]
    steps: dict[str, Any]

    @property
    def budget(self) -> dict[str, dict[str, float | None]]:
        """Of the error of each metric, in shares of the measured value: what comes of `decisions`
        (the replay's error) and what of `step_time` (the rest). None where the replay broke off."""
        found: dict[str, dict[str, float | None]] = {}
        for name, figures in self.metrics.items():
            measured, simulated = figures["measured"], figures["simulated"]
            replayed = _look_up(self.replay.summary, METRICS[name])
            parts: dict[str, float | None] = {"decisions": None, "step_time": None}
            if self.replay.error is None and measured and replayed is not None:
                parts["decisions"] = (replayed - measured) / measured
                if simulated is not None:
                    parts["step_time"] = (simulated - replayed) / measured
            found[name] = parts
        return found

    @property
    def seen(self) -> str | None:
        """What of this run the calibration has seen: `run`, `trace` or nothing."""
        if not isinstance(self.cost, FittedCost):
            return None
        fitted_to = self.cost.file.provenance.get("runs") or []
        if any(run.get("steps_sha256") == self.run.steps_sha256 for run in fitted_to):
            return "run"
        sha256 = self.run.manifest["trace"].get("sha256")
        same = any(run.get("trace_sha256") == sha256 for run in fitted_to)
        return "trace" if same and sha256 is not None else None

    def as_json(self) -> dict[str, Any]:
        """The content of validation.json."""
        replay, divergence = self.replay, self.divergence
        compared = replay.comparison
        return {
            "schema_version": SCHEMA_VERSION,
            "run": str(self.run.path),
            "trace": self.run.manifest["trace"],
            "policy": self.run.manifest["config"].get("policy"),
            "device": self.run.manifest.get("device"),
            "step_time": self.cost.describe(),
            "calibration_saw": self.seen,
            "replay": {
                "same": replay.same,
                "error": replay.error,
                "decisions": None if compared is None else compared.as_json(),
            },
            "divergence": None
            if divergence is None
            else {"same": divergence.same, "iterations": divergence.iterations},
            "metrics": self.metrics,
            "steps": self.steps,
            "error_budget": self.budget,
        }


def validate(
    run: StoredRun, trace: Trace, step_time: str, folder: Path, command: Sequence[str] = ()
) -> Validation:
    """Simulate the run on the trace that it ran, with its own times and with `step_time`.

    Both simulations write their results and decisions into folders below `folder`.

    Raises:
        ConfigError: a setting of the run cannot be had here, or the step time is wrong.
        TraceError: it is not the trace of the run.
        ResultError: the run's steps lack what is needed.
        PolicyError, OutputError: as `run_policy`.
    """
    _check_trace(run, trace)
    settings = settings_of(run)
    replayed_trace = prepare_trace(trace, settings)
    _check_reading(run, replayed_trace)
    model, gpu = load_model(settings.model), load_gpu(settings.gpu)
    cost = make_step_cost(
        step_time, model, gpu, settings.tensor_parallel, own_block_size(settings, model)
    )

    def simulate(source: str, name: str) -> Outcome:
        chosen = settings.model_copy(update={"step_time": source})
        options = RunOptions(folder / name, decisions=True, command=command)
        outcome = run_policy(replayed_trace, chosen, options)
        if outcome.is_interrupted:
            raise KeyboardInterrupt
        return outcome

    replay = _replay(run, simulate(f"recorded:{run.path}", REPLAYED), folder)
    simulated = simulate(step_time, SIMULATED)
    if simulated.error is not None:
        raise simulated.error
    iterations = iterations_of(run)
    predicted = _predicted(cost, iterations)
    return Validation(
        run=run,
        cost=cost,
        replay=replay,
        divergence=_compared(run, folder / SIMULATED),
        simulated=simulated,
        metrics=_metrics(run.summary, simulated.result.summary),
        steps={
            **error_figures(predicted, iterations.period),
            "by_kind": by_kind(predicted, iterations),
        },
    )


def settings_of(run: StoredRun) -> RunSettings:
    """The settings of a run with every size as it came out, so that nothing is chosen anew.

    Raises:
        ResultError: the manifest holds no settings of this version.
    """
    config = dict(run.manifest["config"])
    resolved = config.pop("resolved", {})
    sizes = {
        "blocks": "num_blocks",
        "block_size": "block_size",
        "max_model_len": "max_model_len",
        "token_budget": "max_num_batched_tokens",
        "max_output": "max_output",
    }
    try:
        config |= {name: resolved[chosen] for name, chosen in sizes.items()}
        settings = make_settings(**config)
    except (ConfigError, KeyError, TypeError) as error:
        raise ResultError(
            f"{run.path}: the manifest's settings are not of this version ({error}); run it again"
        ) from None
    if settings.estimator is None:
        # What policies were told in the run, not what tells the time of this simulation.
        asked = settings.step_time or "roofline"
        if run.is_measured or asked.startswith("recorded"):
            asked = "roofline"
        settings = settings.model_copy(update={"estimator": asked})
    return settings


def requests_table(validation: Validation) -> Any:
    """One row a request, in trace order: its latencies as measured and as simulated."""
    import pyarrow as pa

    measured, simulated = validation.run.requests, validation.simulated.result.requests_table
    names = ("status", "admitted", "first_token", "finished", "ttft_s", "tpot_s", "e2e_s")
    table = {"request": measured.column("request"), "arrival": measured.column("arrival")}
    for name in (*names, "preemptions"):
        table[f"measured_{name}"] = measured.column(name)
        table[f"simulated_{name}"] = simulated.column(name)
    return pa.table(table)


def _check_trace(run: StoredRun, trace: Trace) -> None:
    ran = run.manifest["trace"]
    if trace.source.sha256 != ran.get("sha256"):
        raise TraceError(
            f"{trace.source.name} (sha256 {_short(trace.source.sha256)}) is not the trace of "
            f"{run.path}, which ran {ran.get('name')} (sha256 {_short(ran.get('sha256'))}); "
            "give that one"
        )


def _check_reading(run: StoredRun, trace: Trace) -> None:
    """What was done to the trace stands in its notes.

    Raises:
        TraceError: they are not those of the run.
    """
    ran = run.manifest["trace"]
    here, there = list(trace.source.notes), list(ran.get("notes") or [])
    if here != there:
        differs = sorted(set(here) ^ set(there)) or here
        raise TraceError(
            f"{trace.source.name} was read otherwise for {run.path}, see --spread-ticks and "
            f"--think-cap: {'; '.join(differs)}"
        )
    if len(trace) != run.requests.num_rows:
        raise TraceError(
            f"{trace.source.name} has {len(trace):,} requests, {run.path} {run.requests.num_rows:,}"
            "; give the trace as it was run"
        )


def _short(sha256: str | None) -> str:
    return "unknown" if sha256 is None else f"{sha256[:12]}…"


def _replay(run: StoredRun, outcome: Outcome, folder: Path) -> Replay:
    if outcome.error is not None and not isinstance(outcome.error, ReplayError):
        raise outcome.error
    error = None if outcome.error is None else str(outcome.error)
    return Replay(_compared(run, folder / REPLAYED), error, outcome.result.summary)


def _compared(run: StoredRun, simulated: Path) -> Comparison | None:
    if not run.has_decisions:
        return None
    return compare_decisions(DecisionFile(run.path), DecisionFile(simulated, simulated.name))


def _predicted(cost: StepCost, iterations: Iterations) -> npt.NDArray[np.float64]:
    """The model's seconds of each measured iteration; no gap where none was measured."""
    shapes = iterations.shapes()
    if not isinstance(cost, PartedCost):
        return np.array([cost.seconds(shape) for shape in shapes])
    host, device, gap = np.array([cost.parts(shape) for shape in shapes]).T
    return iterations.added(host, device, gap)


def _metrics(
    measured: dict[str, Any], simulated: dict[str, Any]
) -> dict[str, dict[str, float | None]]:
    found = {}
    for name, path in METRICS.items():
        there, here = _look_up(measured, path), _look_up(simulated, path)
        found[name] = {
            "measured": there,
            "simulated": here,
            "relative_error": relative(there, here),
        }
    return found


def relative(measured: float | None, simulated: float | None) -> float | None:
    """(Simulated - measured) / measured; None where that is no number."""
    if measured is None or simulated is None:
        return None
    if measured == simulated:
        return 0.0
    return (simulated - measured) / measured if measured else None


def _look_up(summary: dict[str, Any], path: tuple[str, ...]) -> float | None:
    value: Any = summary
    for key in path:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, int | float) else None
