"""`schedsim execute`: policies on a trace, on a real model."""

from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from schedsim.cli import options
from schedsim.cli.errors import user_errors
from schedsim.cli.options import ENGINE, choose_arrivals, parse_slo
from schedsim.cli.side_by_side import Output, check_output, read_for_run, run_all
from schedsim.cli.working import working
from schedsim.config import choose_model, make_execution_settings, make_settings
from schedsim.experiments.execution import execute_policy, load_device_model, require_torch
from schedsim.experiments.setup import prepare_trace

EXAMPLES = """\
Examples:

schedsim execute --limit 100 --token-scale 0.1  (the bundled sample on the model `tiny`)

schedsim execute trace.csv.gz --policy vllm --policy static --all-at-once --out results

schedsim execute trace.csv.gz --weights Llama-3.2-1B --device cuda --concurrency 32

schedsim execute lengths.csv --arrivals poisson:rate=5 --model qwen2.5-0.5b --decisions --out run
"""

DEVICE = "Device"


def execute(
    trace: options.TraceFile = None,
    policy: options.Policies = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Name, see `schedsim models`, or Hugging Face config.json: random weights; "
            "default: tiny.",
            rich_help_panel=ENGINE,
        ),
    ] = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="Directory with config.json and safetensors, instead of --model.",
            rich_help_panel=ENGINE,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="cpu, cuda or cuda:N; default: the GPU if there is one.", rich_help_panel=DEVICE
        ),
    ] = None,
    dtype: Annotated[
        str | None,
        typer.Option(
            help="float32, float64, bfloat16 or float16; default: float32 on a CPU, bfloat16 on "
            "a GPU.",
            rich_help_panel=DEVICE,
        ),
    ] = None,
    attention: Annotated[
        str | None,
        typer.Option(
            help="triton (our kernels) or torch (the reference); default: triton on a GPU, torch "
            "on a CPU.",
            rich_help_panel=DEVICE,
        ),
    ] = None,
    kernel: Annotated[
        str | None,
        typer.Option(
            help="How attention finds keys and values: paged (by a block table) or contiguous; "
            "default: contiguous where memory keeps a request in one piece.",
            rich_help_panel=DEVICE,
        ),
    ] = None,
    temperature: Annotated[
        float,
        typer.Option(
            help="Of the sampling, which goes no further; 0: greedy.", rich_help_panel=DEVICE
        ),
    ] = 0.0,
    threads: Annotated[
        int | None,
        typer.Option(help="Threads of a CPU; default: torch's choice.", rich_help_panel=DEVICE),
    ] = None,
    estimator: options.Estimator = None,
    gpu: Annotated[
        str,
        typer.Option(help="The GPU that a roofline estimator assumes.", rich_help_panel=ENGINE),
    ] = "h100",
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
    out: options.Out = None,
    decisions: options.Decisions = False,
    timeline: options.Timeline = False,
    check: options.Check = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Run one or more policies on a real model, in real time, and print what they are worth."""
    with user_errors():
        require_torch()
        execution = make_execution_settings(
            weights=None if weights is None else str(weights),
            device=device,
            dtype=dtype,
            attention=attention,
            kernel=kernel,
            temperature=temperature,
            threads=threads,
        )
        settings = [
            make_settings(
                policy=spec,
                model=choose_model(model, execution),
                gpu=gpu,
                estimator=estimator,
                memory=memory,
                blocks=blocks,
                block_size=block_size,
                max_seqs=max_seqs,
                token_budget=token_budget,
                max_model_len=max_model_len,
                decision_lag=decision_lag,
                max_output=max_output,
                predictor=predictor,
                memory_predictor=memory_predictor,
                arrivals=choose_arrivals(arrivals, all_at_once),
                concurrency=concurrency,
                rate_scale=rate_scale,
                token_scale=token_scale,
                limit=limit,
                seed=seed,
                **parse_slo(slo),
            )
            for spec in policy or ["vllm"]
        ]
        output = Output(out, decisions, timeline, check, as_json, quiet)
        directories = check_output(settings, output)
        replayed = prepare_trace(read_for_run(trace, spread_ticks, think_cap, quiet), settings[0])
        with nullcontext() if quiet else working(f"loading {settings[0].model}"):
            loaded = load_device_model(settings[0], execution)
        run_one = partial(execute_policy, model=loaded)
        run_all(replayed, settings, directories, output, run_one, unit="s")
