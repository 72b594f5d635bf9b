"""`schedsim validate`: measured runs against their simulation."""

import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from schedsim.cli import options
from schedsim.cli.beside_runs import check_beside_runs
from schedsim.cli.diff import EXIT_DIFFERENT
from schedsim.cli.errors import user_errors
from schedsim.cli.execution_settings import ExecutionPlan, plan_executions
from schedsim.cli.progress import count_progress, progress_bar
from schedsim.cli.side_by_side import note, read_for_run
from schedsim.cli.validate_output import (
    tell_validation,
    validation_folder,
    write_validation,
)
from schedsim.cli.working import working
from schedsim.config import RunSettings
from schedsim.costs import load_gpu, load_model, make_step_cost
from schedsim.errors import ConfigError
from schedsim.experiments.execution import load_device_model, require_torch
from schedsim.experiments.measuring import measure
from schedsim.experiments.setup import prepare_trace
from schedsim.experiments.step_time import scatter_of
from schedsim.experiments.validation.cells import make_cells
from schedsim.experiments.validation.metrics import Margins
from schedsim.experiments.validation.simulations import DRAWS
from schedsim.experiments.validation.validating import validate as validate_cells
from schedsim.policies.loading import make_policy
from schedsim.results.stored_run import load_run
from schedsim.traces import Trace

EXAMPLES = """\
Examples:

schedsim validate --limit 60 --token-scale 0.1 --policy vllm --policy sarathi --repeats 3 \
--calibration cpu.json --out report  (executes six times, then simulates)

schedsim validate trace.csv.gz --from one --from two --calibration h100.json  (measured already)

schedsim validate --from measured --step-time roofline --margin latency=0.05
"""

VALIDATE = "Validation"

ALSO_WITH_RUNS = (
    *("trace", "runs", "calibration", "step_time", "margin", "draws", "spread_ticks", "think_cap"),
    *("out", "as_json", "quiet"),
)
"""What can be given beside runs that were measured already; the rest stands in these."""


@user_errors()
def validate(
    context: typer.Context,
    trace: options.TraceFile = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="What is executed: name,parameter=value,… or file.py:Class; may stand several "
            "times.",
            rich_help_panel=VALIDATE,
        ),
    ] = None,
    repeats: Annotated[
        int,
        typer.Option(help="Executions of each policy.", min=1, rich_help_panel=VALIDATE),
    ] = 2,
    runs: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            help="Directory of a measured run, instead of executing; may stand several times.",
            rich_help_panel=VALIDATE,
        ),
    ] = None,
    calibration: Annotated[
        Path | None,
        typer.Option(
            help="A file of `schedsim calibrate`: the step time to hold.", rich_help_panel=VALIDATE
        ),
    ] = None,
    step_time: Annotated[
        str | None,
        typer.Option(help="Another step time to hold, e.g. roofline.", rich_help_panel=VALIDATE),
    ] = None,
    margin: Annotated[
        str | None,
        typer.Option(
            help="What may pass for equal, as shares; default: throughput=0.015,latency=0.03.",
            rich_help_panel=VALIDATE,
        ),
    ] = None,
    draws: Annotated[
        int,
        typer.Option(
            help="Take the means of so many simulations that scatter as the calibration's "
            "iterations; 0: one that does not.",
            min=0,
            rich_help_panel=VALIDATE,
        ),
    ] = 0,
    model: options.DeviceModelName = None,
    weights: options.Weights = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    attention: options.Attention = None,
    kernels: options.Kernels = None,
    temperature: options.Temperature = 0.0,
    threads: options.Threads = None,
    estimator: options.Estimator = None,
    gpu: options.AssumedGpu = "h100",
    memory: options.Memory = None,
    blocks: options.Blocks = None,
    block_size: options.BlockSize = 16,
    max_seqs: options.MaxSeqs = 256,
    token_budget: options.TokenBudget = None,
    max_model_len: options.MaxModelLen = None,
    decision_lag: options.DecisionLag = None,
    max_output: options.MaxOutput = None,
    predictor: options.Predictor = "none",
    memory_predictor: options.MemoryPredictor = None,
    arrivals: options.Arrivals = None,
    all_at_once: options.AllAtOnce = False,
    concurrency: options.Concurrency = None,
    rate_scale: options.RateScale = 1.0,
    token_scale: options.TokenScale = 1.0,
    limit: options.Limit = None,
    spread_ticks: options.SpreadTicks = False,
    think_cap: options.ThinkCap = None,
    seed: options.Seed = 0,
    slo: options.Slo = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="New directory: validation.json, requests.parquet, validation.html, every run.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = None,
    decisions: Annotated[
        bool,
        typer.Option(
            "--decisions",
            help="Let executions write whole decisions, to see a difference side by side; slow.",
            rich_help_panel=options.OUTPUT,
        ),
    ] = False,
    as_json: Annotated[
        bool,
        typer.Option("--json", help="Print validation.json.", rich_help_panel=options.OUTPUT),
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Execute policies, or take measured runs, simulate them, and say how far off and why.

    Exit code 1: with a run's own times the simulation decides otherwise than the run did.
    """
    source = _step_time(calibration, step_time)
    margins = parse_margins(margin)
    plan = None
    if runs is None:
        plan = plan_executions(context.params, policy or ())
        _check_before_executing(plan.settings, source, draws)
    else:
        check_beside_runs(context, ALSO_WITH_RUNS, "executions")
    given = read_for_run(trace, spread_ticks, think_cap, quiet)
    command = ["schedsim", *sys.argv[1:]]
    with validation_folder(out) as folder:
        if plan is not None:
            runs = _measure(given, plan, repeats, folder, decisions, command, quiet)
        cells = make_cells([load_run(path) for path in runs or ()], given)
        with count_progress("simulating", len(cells), quiet, "cells") as advance:
            validation = validate_cells(
                cells,
                source,
                folder,
                margins=margins,
                draws=draws,
                command=command,
                progress=advance,
            )
        if out is not None:
            write_validation(validation, out, quiet)
    tell_validation(validation, as_json, quiet)
    if out is not None and not quiet:
        note(f"results in {out}")
    if not validation.replays_same:
        raise typer.Exit(EXIT_DIFFERENT)


def parse_margins(text: str | None) -> Margins:
    """Margins from `throughput=0.015,latency=0.03` or one of them.

    Raises:
        ConfigError: another key, one that stands twice, or no share above 0 and below 1.
    """
    given: dict[str, float] = {}
    for field in () if text is None else text.split(","):
        key, _, value = field.partition("=")
        if key not in ("throughput", "latency") or key in given:
            raise ConfigError(
                f"--margin {text!r}: write throughput=SHARE,latency=SHARE or one of them"
            )
        try:
            given[key] = float(value)
        except ValueError:
            raise ConfigError(f"--margin {text!r}: {value!r} is not a number") from None
        if not 0 < given[key] < 1:
            raise ConfigError(f"--margin {text!r}: {value} must be above 0 and below 1")
    return Margins(**given)


def _step_time(calibration: Path | None, step_time: str | None) -> str:
    if (calibration is None) == (step_time is None):
        raise ConfigError(
            "give the step time to hold against the runs: either --calibration FILE, which "
            "`schedsim calibrate --from OTHER_RUN --out FILE` writes, or --step-time SPEC"
        )
    return step_time or f"fitted:{calibration}"


def _check_before_executing(settings: Sequence[RunSettings], step_time: str, draws: int) -> None:
    """Refuse what could only fail after the executions."""
    if not settings:
        raise ConfigError(
            "name the policies to execute with --policy, or measured runs, the --out of a "
            "`schedsim execute`, with --from RUN_DIR"
        )
    for place, chosen in enumerate(settings):
        make_policy(chosen.policy)
        if any(chosen.policy == other.policy for other in settings[:place]):
            raise ConfigError(
                f"--policy {chosen.policy} is there twice; --repeats N executes it N times"
            )
    model, gpu = load_model(settings[0].model), load_gpu(settings[0].gpu)
    cost = make_step_cost(step_time, model, gpu)
    if draws:
        scatter_of(cost, DRAWS)
    require_torch()


def _measure(
    trace: Trace,
    plan: ExecutionPlan,
    repeats: int,
    folder: Path,
    decisions: bool,
    command: Sequence[str],
    quiet: bool,
) -> list[Path]:
    first = plan.settings[0]
    prepared = prepare_trace(trace, first)
    with nullcontext() if quiet else working(f"loading {first.model}"):
        model = load_device_model(first, plan.execution)
    return measure(
        prepared,
        plan.settings,
        repeats,
        folder,
        model,
        decisions=decisions,
        command=command,
        watch=lambda label, requests: progress_bar(label, requests, quiet, "s"),
    )
