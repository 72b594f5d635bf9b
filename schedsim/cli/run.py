"""`schedsim run`: policies on a trace, side by side."""

import json
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from schedsim.cli.console import stdout_console
from schedsim.cli.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, user_errors
from schedsim.cli.progress import progress_bar
from schedsim.cli.working import working
from schedsim.config import make_settings
from schedsim.errors import ConfigError
from schedsim.experiments.runs import (
    INTERRUPTED,
    Outcome,
    RunOptions,
    folder_names,
    run_directories,
    run_policy,
)
from schedsim.experiments.setup import prepare_trace
from schedsim.policies import POLICIES
from schedsim.policies.loading import make_policy
from schedsim.results import render_table
from schedsim.traces import Trace, read_trace
from schedsim.traces.generators.arrivals import PROCESSES
from schedsim.traces.sample import sample_trace

EXAMPLES = """\
Examples:

schedsim run  (the bundled sample under vllm)

schedsim run trace.csv.gz --policy vllm --policy sarathi,chunk_size=512 --out results

schedsim run lengths.csv --arrivals poisson:rate=5 --blocks 2048 --slo ttft=0.5,tpot=0.05

schedsim run --policy my_policy.py:MyPolicy,alpha=2 --step-time linear:step.toml --check
"""

ENGINE, LOAD, OUTPUT = "Engine", "Load", "Output"


def run(
    trace: Annotated[
        Path | None, typer.Argument(help="Trace file, any known format; default: the sample.")
    ] = None,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="name,parameter=value,… or file.py:Class; may stand several times; default: vllm. "
            "`schedsim policies` lists them."
        ),
    ] = None,
    model: Annotated[
        str,
        typer.Option(
            help="Name, see `schedsim models`, or Hugging Face config.json.",
            rich_help_panel=ENGINE,
        ),
    ] = "llama-3-8b",
    gpu: Annotated[
        str, typer.Option(help="Name, see `schedsim gpus`.", rich_help_panel=ENGINE)
    ] = "h100",
    tensor_parallel: Annotated[
        int,
        typer.Option(
            "--tensor-parallel", "--tp", help="GPUs that share the model.", rich_help_panel=ENGINE
        ),
    ] = 1,
    step_time: Annotated[
        str,
        typer.Option(
            help="roofline, linear:FILE, or recorded:RUN_DIR to replay a run's own times.",
            rich_help_panel=ENGINE,
        ),
    ] = "roofline",
    estimator: Annotated[
        str | None,
        typer.Option(
            help="Step times that policies may ask for; default: the run's own.",
            rich_help_panel=ENGINE,
        ),
    ] = None,
    memory: Annotated[
        str, typer.Option(help="Memory manager of the KV cache.", rich_help_panel=ENGINE)
    ] = "paged",
    blocks: Annotated[
        int | None,
        typer.Option(
            help="Usable KV blocks; default: what the GPU has room for.", rich_help_panel=ENGINE
        ),
    ] = None,
    block_size: Annotated[
        int, typer.Option(help="Tokens in a block.", rich_help_panel=ENGINE)
    ] = 16,
    max_seqs: Annotated[
        int, typer.Option(help="Seats: requests that run at once.", rich_help_panel=ENGINE)
    ] = 256,
    token_budget: Annotated[
        int | None,
        typer.Option(help="Tokens an iteration; default: the policy's.", rich_help_panel=ENGINE),
    ] = None,
    max_model_len: Annotated[
        int | None,
        typer.Option(
            help="Longest prompt plus output; default: the model's.", rich_help_panel=ENGINE
        ),
    ] = None,
    max_output: Annotated[
        str | None,
        typer.Option(
            help="Output limits that policies see: column, context, const:N or factor:K.",
            rich_help_panel=LOAD,
        ),
    ] = None,
    predictor: Annotated[
        str, typer.Option(help="none, oracle or lognormal,sigma=0.5.", rich_help_panel=LOAD)
    ] = "none",
    arrivals: Annotated[
        str | None,
        typer.Option(
            help=f"Arrival process, e.g. poisson:rate=5; one of {', '.join(PROCESSES)}.",
            rich_help_panel=LOAD,
        ),
    ] = None,
    concurrency: Annotated[
        int | None,
        typer.Option(help="Closed loop with N requests outstanding.", rich_help_panel=LOAD),
    ] = None,
    rate_scale: Annotated[
        float, typer.Option(help="Multiply the request rate.", rich_help_panel=LOAD)
    ] = 1.0,
    token_scale: Annotated[
        float, typer.Option(help="Multiply all lengths.", rich_help_panel=LOAD)
    ] = 1.0,
    limit: Annotated[
        int | None, typer.Option(help="Only the first N requests.", rich_help_panel=LOAD)
    ] = None,
    spread_ticks: Annotated[
        bool,
        typer.Option(
            "--spread-ticks",
            help="Spread arrivals of tick-quantised traces.",
            rich_help_panel=LOAD,
        ),
    ] = False,
    think_cap: Annotated[
        float | None,
        typer.Option(help="Cap think times of sessions, in s.", rich_help_panel=LOAD),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of every random draw.", rich_help_panel=LOAD)] = 0,
    slo: Annotated[
        str | None,
        typer.Option(help="Targets in s, e.g. ttft=0.5,tpot=0.05.", rich_help_panel=OUTPUT),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="New directory for the result files.", rich_help_panel=OUTPUT),
    ] = None,
    decisions: Annotated[
        bool, typer.Option("--decisions", help="Write decisions.jsonl.gz.", rich_help_panel=OUTPUT)
    ] = False,
    timeline: Annotated[
        bool,
        typer.Option(
            "--timeline", help="Write timeline.json.gz for Perfetto.", rich_help_panel=OUTPUT
        ),
    ] = False,
    check: Annotated[
        int | None,
        typer.Option(
            help="Assert all invariants after every iteration, with =N after every N-th.",
            rich_help_panel=OUTPUT,
            min=1,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summaries as JSON.", rich_help_panel=OUTPUT)
    ] = False,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress, no notes.", rich_help_panel=OUTPUT)
    ] = False,
) -> None:
    """Simulate one or more policies on a trace and print what they are worth."""
    with user_errors():
        specs = policy or ["vllm"]
        targets = parse_slo(slo)
        settings = [
            make_settings(
                policy=spec,
                model=model,
                gpu=gpu,
                tensor_parallel=tensor_parallel,
                step_time=step_time,
                estimator=estimator,
                memory=memory,
                blocks=blocks,
                block_size=block_size,
                max_seqs=max_seqs,
                token_budget=token_budget,
                max_model_len=max_model_len,
                max_output=max_output,
                predictor=predictor,
                arrivals=arrivals,
                concurrency=concurrency,
                rate_scale=rate_scale,
                token_scale=token_scale,
                limit=limit,
                seed=seed,
                **targets,
            )
            for spec in specs
        ]
        for spec in specs:
            make_policy(spec)  # a wrong name stops the command before anything runs
        if out is None and (decisions or timeline):
            raise ConfigError("--decisions and --timeline write files: name a directory with --out")
        directories = run_directories(out, specs)
        given = _read(trace, spread_ticks, think_cap, quiet)
        replayed = prepare_trace(given, settings[0])
        outcomes: dict[str, Outcome] = {}
        for label, chosen, directory in zip(
            folder_names(specs), settings, directories, strict=True
        ):
            options = RunOptions(directory, decisions, timeline, check, ["schedsim", *sys.argv[1:]])
            with progress_bar(label, len(replayed), quiet) as progress:
                outcomes[label] = run_policy(replayed, chosen, options, progress=progress)
            if outcomes[label].stopped == INTERRUPTED:
                break
        _report(outcomes, directories, as_json, quiet)
        _fail_if_stopped(outcomes, directories)


def parse_slo(text: str | None) -> dict[str, float]:
    """`slo_ttft` and `slo_tpot` in seconds from `ttft=0.5,tpot=0.05`.

    Raises:
        ConfigError: another key, one that stands twice, or not a number.
    """
    targets: dict[str, float] = {}
    for field in () if text is None else text.split(","):
        key, _, value = field.partition("=")
        if key not in ("ttft", "tpot") or f"slo_{key}" in targets:
            raise ConfigError(f"--slo {text!r}: write ttft=SECONDS,tpot=SECONDS or one of them")
        try:
            targets[f"slo_{key}"] = float(value)
        except ValueError:
            raise ConfigError(f"--slo {text!r}: {value!r} is not a number of seconds") from None
    return targets


def _read(path: Path | None, spread_ticks: bool, think_cap: float | None, quiet: bool) -> Trace:
    if path is None:
        if spread_ticks or think_cap is not None:
            raise ConfigError(
                "--spread-ticks and --think-cap are for a trace of your own: the bundled sample "
                "has neither ticks nor think times"
            )
        trace = sample_trace()
    else:
        if str(path) in POLICIES and not path.exists():
            raise ConfigError(f"{path} is no trace file but a policy: write --policy {path}")
        with nullcontext() if quiet else working(f"reading {path}"):
            trace = read_trace(path, spread_ticks=spread_ticks, think_cap_s=think_cap)
    if not quiet:
        for reason, rows in trace.source.dropped.items():
            note(f"{trace.source.name}: {rows} of {trace.source.rows_read} rows dropped: {reason}")
        for text in trace.source.notes:
            note(f"{trace.source.name}: {text}")
    return trace


def _report(
    outcomes: dict[str, Outcome], directories: list[Path | None], as_json: bool, quiet: bool
) -> None:
    results = {label: outcome.result for label, outcome in outcomes.items()}
    if not quiet:
        for text in dict.fromkeys(n for outcome in outcomes.values() for n in outcome.notes):
            whose = [label for label, outcome in outcomes.items() if text in outcome.notes]
            note(text if len(whose) == len(outcomes) else f"{', '.join(whose)}: {text}")
    if as_json:
        summaries = {label: result.summary for label, result in results.items()}
        typer.echo(json.dumps(summaries, indent=2, ensure_ascii=False))
    else:
        stdout_console().print(render_table(results))
    if not quiet:
        for directory in directories:
            if directory is not None and directory.exists():
                note(f"results in {directory}")


def _fail_if_stopped(outcomes: dict[str, Outcome], directories: list[Path | None]) -> None:
    """End with 130 after Ctrl-C and with 2 after a policy's error."""
    stopped = []
    for outcome, directory in zip(outcomes.values(), directories, strict=False):
        if outcome.stopped is not None:
            stopped.append(outcome.stopped)
            kept = "" if directory is None else f"; what had finished is kept in {directory}"
            typer.echo(f"error: {outcome.stopped}{kept}", err=True)
    if stopped:
        raise typer.Exit(EXIT_INTERRUPTED if INTERRUPTED in stopped else EXIT_USER_ERROR)


def note(text: str) -> None:
    """A remark on stderr."""
    typer.echo(f"note: {text}", err=True)
