"""`schedsim run`: policies on a trace, side by side."""

from typing import Annotated

import typer

from schedsim.cli import options
from schedsim.cli.errors import user_errors
from schedsim.cli.options import ENGINE, choose_arrivals, parse_slo
from schedsim.cli.repeats import check_random, run_repeated
from schedsim.cli.side_by_side import Output, check_output, read_for_run, run_all
from schedsim.config import make_settings
from schedsim.experiments.runs import run_policy
from schedsim.experiments.setup import prepare_trace

EXAMPLES = """\
Examples:

schedsim run  (the bundled sample under vllm)

schedsim run trace.csv.gz --policy vllm --policy sarathi,chunk_size=512 --out results

schedsim run lengths.csv --arrivals poisson:rate=5 --blocks 2048 --slo ttft=0.5,tpot=0.05

schedsim run --arrivals poisson:rate=6 --repeats 5 --limit 500 --policy vllm --policy sarathi

schedsim run --gpu a100-40gb --memory contiguous,reserve=predicted --predictor oracle

schedsim run --policy my_policy.py:MyPolicy,alpha=2 --step-time linear:step.toml --check
"""


def run(
    trace: options.TraceFile = None,
    policy: options.Policies = None,
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
        str | None,
        typer.Option(
            help="roofline, linear:FILE, fitted:FILE, tables:DIR, or recorded:RUN_DIR to replay a "
            "run; default: a calibration of the model on the GPU that comes with schedsim, else "
            "roofline.",
            rich_help_panel=ENGINE,
        ),
    ] = None,
    step_noise: Annotated[
        bool,
        typer.Option(
            "--step-noise",
            help="Scatter a fitted step time as repeats of one size did, drawn from --seed.",
            rich_help_panel=ENGINE,
        ),
    ] = False,
    estimator: options.Estimator = None,
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
    repeats: Annotated[
        int,
        typer.Option(
            help="Run each policy with this many seeds, --seed and on, the same ones for all; "
            "the table then has intervals.",
            rich_help_panel=options.LOAD,
            min=1,
        ),
    ] = 1,
    slo: options.Slo = None,
    out: options.Out = None,
    decisions: options.Decisions = False,
    timeline: options.Timeline = False,
    check: options.Check = None,
    no_fast_forward: options.NoFastForward = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Simulate one or more policies on a trace and print what they are worth."""
    with user_errors():
        settings = [
            make_settings(
                policy=spec,
                model=model,
                gpu=gpu,
                tensor_parallel=tensor_parallel,
                step_time=step_time,
                step_noise=step_noise,
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
        output = Output(out, decisions, timeline, check, as_json, quiet, not no_fast_forward)
        directories = check_output(settings, output)
        if repeats > 1:
            check_random(settings[0])
            given = read_for_run(trace, spread_ticks, think_cap, quiet)
            run_repeated(given, settings, directories, output, repeats)
            return
        replayed = prepare_trace(read_for_run(trace, spread_ticks, think_cap, quiet), settings[0])
        run_all(replayed, settings, directories, output, run_policy, unit="s simulated")
