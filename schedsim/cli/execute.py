"""`schedsim execute`: policies on a trace, on a real model."""

from contextlib import nullcontext
from functools import partial

import typer

from schedsim.cli import options
from schedsim.cli.errors import user_errors
from schedsim.cli.execution_settings import plan_executions
from schedsim.cli.side_by_side import Output, check_output, read_for_run, run_all
from schedsim.cli.working import working
from schedsim.experiments.execution import execute_policy, load_device_model, require_torch
from schedsim.experiments.setup import prepare_trace

EXAMPLES = """\
Examples:

schedsim execute --limit 100 --token-scale 0.1  (the bundled sample on the model `tiny`)

schedsim execute trace.csv.gz --policy vllm --policy static --all-at-once --out results

schedsim execute trace.csv.gz --weights Llama-3.2-1B --device cuda --concurrency 32

schedsim execute lengths.csv --arrivals poisson:rate=5 --model qwen2.5-0.5b --decisions --out run
"""


def execute(
    context: typer.Context,
    trace: options.TraceFile = None,
    policy: options.Policies = None,
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
        settings, execution = plan_executions(context.params, policy or ["vllm"])
        output = Output(out, decisions, timeline, check, as_json, quiet)
        directories = check_output(settings, output)
        replayed = prepare_trace(read_for_run(trace, spread_ticks, think_cap, quiet), settings[0])
        with nullcontext() if quiet else working(f"loading {settings[0].model}"):
            loaded = load_device_model(settings[0], execution)
        run_one = partial(execute_policy, model=loaded)
        run_all(replayed, settings, directories, output, run_one, unit="s")
