"""`schedsim ablate`: paging or scheduling? Every combination, and what each part contributes."""

import json
import sys
from contextlib import nullcontext
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from schedsim.cli import options
from schedsim.cli.ablate_tables import print_ablation, print_measured
from schedsim.cli.errors import user_errors
from schedsim.cli.options import DEVICE, ENGINE, LOAD, OUTPUT, parse_slo
from schedsim.cli.progress import count_progress
from schedsim.cli.side_by_side import note
from schedsim.cli.working import working
from schedsim.config import ExecutionSettings, make_execution_settings, make_settings
from schedsim.errors import ConfigError
from schedsim.experiments.ablation import export
from schedsim.experiments.ablation.kernels import step_time
from schedsim.experiments.ablation.measuring import with_device_sizes
from schedsim.experiments.ablation.on_device import measure, measured_size
from schedsim.experiments.ablation.running import Ablated, prepare
from schedsim.experiments.ablation.running import ablate as run_ablation
from schedsim.experiments.ablation.setup import DEFAULT_REQUESTS, DEFAULT_TRACE, Setup
from schedsim.experiments.execution import load_device_model, require_torch
from schedsim.report.export import svg_of
from schedsim.report.figures import INSTALL
from schedsim.results.directory import check_unused, write_whole
from schedsim.sweep.traces import check_trace, is_recipe

EXAMPLES = """\
Examples:

schedsim ablate --repeats 1  (the default workload, once: half a minute)

schedsim ablate generate:sharegpt,requests=1000 --blocks 4000 --out scarce

schedsim ablate trace.csv --requests 500 --slo ttft=2,tpot=0.1  (capacities, too)

schedsim ablate generate:azure-conv,requests=80 --device cuda --blocks 2500 --max-model-len 4096 \\
--max-seqs 256 --repeats 3 --out measured
"""

KERNELS = "Kernels"


@user_errors()
def ablate(
    trace: Annotated[
        str,
        typer.Argument(
            help="A trace file, sample, or generate:PRESET,requests=N, drawn anew in every repeat.",
            metavar="[TRACE]",
        ),
    ] = DEFAULT_TRACE,
    model: Annotated[
        str, typer.Option(help="Name, see `schedsim models`.", rich_help_panel=ENGINE)
    ] = "llama-3-8b",
    gpu: Annotated[
        str, typer.Option(help="Name, see `schedsim gpus`.", rich_help_panel=ENGINE)
    ] = "h100",
    paged_kernel: Annotated[
        str | None,
        typer.Option(
            help="Step time with the paged kernel: as --step-time of `schedsim run`, or paged, "
            "contiguous or library (torch's best), rooflines at the rates measured on an H100; "
            "default: paged; with --device a fit to the runs there.",
            rich_help_panel=KERNELS,
        ),
    ] = None,
    contiguous_kernel: Annotated[
        str | None,
        typer.Option(
            help="The same with the contiguous kernel; default: contiguous.",
            rich_help_panel=KERNELS,
        ),
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(
            help="cpu, cuda or cuda:N: execute thirteen of the cells there, and print what was "
            "measured beside the simulation.",
            rich_help_panel=DEVICE,
        ),
    ] = None,
    threads: Annotated[
        int | None,
        typer.Option(help="Threads of a CPU; default: torch's choice.", rich_help_panel=DEVICE),
    ] = None,
    blocks: options.Blocks = None,
    block_size: options.BlockSize = 16,
    max_seqs: options.MaxSeqs = 1024,
    token_budget: options.TokenBudget = None,
    max_model_len: options.MaxModelLen = None,
    requests: Annotated[
        int | None,
        typer.Option(
            help="Requests that each repeat draws from a file, default 1000; a recipe says its "
            "own (requests=N).",
            rich_help_panel=LOAD,
        ),
    ] = None,
    token_scale: options.TokenScale = 1.0,
    noise: Annotated[
        str,
        typer.Option(help="The predictor that errs, as --predictor of `schedsim run`."),
    ] = "lognormal,sigma=0.5",
    slo: Annotated[
        str | None,
        typer.Option(
            help="Targets in s, e.g. ttft=2,tpot=0.1: search the capacities under them, too.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    repeats: Annotated[
        int, typer.Option(help="Draws of the workload, for intervals.", rich_help_panel=LOAD)
    ] = 5,
    seed: options.Seed = 0,
    out: Annotated[
        Path | None,
        typer.Option(
            help="New directory for cells.parquet, factors.parquet, waterfall.svg and "
            "manifest.json.",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print it all as JSON.", rich_help_panel=OUTPUT)
    ] = False,
    quiet: options.Quiet = False,
) -> None:
    """Batching × memory × kernel at equal KV bytes: what scheduling brings, and what paging does.

    Static batching (the largest batch that can never overflow, and the best one that a search
    finds), static batching by expected length and continuous batching, each on memory reserved to
    the maximum, sized by true or by noisy lengths, from a buddy allocator, and paged.
    """
    check_trace(trace)
    if requests is not None and is_recipe(trace):
        raise ConfigError(
            f"--requests {requests} is for a trace file; the recipe {trace} says its own: "
            f"generate:PRESET,requests={requests}"
        )
    _check_options(device, slo, threads, (paged_kernel, contiguous_kernel))
    if out is not None:
        check_unused(out)
    engine = make_settings(
        model=model,
        gpu=gpu,
        blocks=blocks,
        block_size=block_size,
        max_seqs=max_seqs,
        token_budget=token_budget,
        max_model_len=max_model_len,
        token_scale=token_scale,
        seed=seed,
        **parse_slo(slo),
    )
    setup = Setup(
        engine=engine,
        trace=trace,
        requests=DEFAULT_REQUESTS if requests is None else requests,
        repeats=repeats,
        noise=noise,
        paged_kernel=step_time(paged_kernel or "paged"),
        contiguous_kernel=step_time(contiguous_kernel or "contiguous"),
    )
    if device is not None:
        execution = make_execution_settings(device=device, threads=threads)
        is_calibrated = paged_kernel is not None
        notes = _measure(setup, execution, is_calibrated, out, as_json, quiet)
    else:
        notes = _simulate(setup, out, as_json, quiet)
    if not quiet:
        for text in notes:
            note(text)
        if out is not None:
            note(f"results in {out}")


def _check_options(
    device: str | None, slo: str | None, threads: int | None, kernels: tuple[str | None, str | None]
) -> None:
    """Refuse what does not go together.

    Raises:
        ConfigError: it does not.
    """
    if device is None:
        if threads is not None:
            raise ConfigError(f"--threads {threads} is for --device cpu; leave it out")
        return
    require_torch()
    if slo is not None:
        raise ConfigError(
            f"--slo {slo}: capacities are searched in simulation only; leave it or --device out"
        )
    if (kernels[0] is None) != (kernels[1] is None):
        raise ConfigError(
            "--device: give the step times of both kernels (--paged-kernel and "
            "--contiguous-kernel), or none to have them fitted to the runs"
        )


def _simulate(setup: Setup, out: Path | None, as_json: bool, quiet: bool) -> list[str]:
    """Run every cell in simulation and print what follows; notes on it."""
    with nullcontext() if quiet else working("drawing the requests"):
        prepared = prepare(setup)
    with count_progress("ablate", prepared.size, quiet, "cells") as progress:
        ablated = run_ablation(prepared, out=out, command=_command(), progress=progress)
    # All files come before the first line: who reads only some of these lines still has the files.
    on_figure = [] if out is None else _draw(ablated, out / "waterfall.svg")
    if as_json:
        typer.echo(json.dumps(export.as_json(ablated), indent=2, ensure_ascii=False))
    else:
        print_ablation(ablated)
    return [*ablated.notes, *on_figure]


def _draw(ablated: Ablated, path: Path) -> list[str]:
    """Write the waterfall of the burst; a note if what draws it is not installed."""
    if find_spec("altair") is None or find_spec("vl_convert") is None:
        return [f"no {path.name} without altair and vl-convert-python: {INSTALL}"]
    figure = export.waterfall_of(ablated.cells, ablated.answers[0].factors[0])
    write_whole(path, svg_of(figure))
    return []


def _measure(
    setup: Setup,
    execution: ExecutionSettings,
    is_calibrated: bool,
    out: Path | None,
    as_json: bool,
    quiet: bool,
) -> list[str]:
    """Execute cells on a device and print them beside their simulation; notes on it."""
    with nullcontext() if quiet else working(f"loading {setup.engine.model}"):
        loaded = load_device_model(setup.engine, execution)
        engine, sizes = with_device_sizes(setup.engine, loaded)
        prepared = prepare(replace(setup, engine=engine))
    with count_progress("ablate", measured_size(prepared), quiet, "runs") as progress:
        found = measure(
            prepared,
            loaded,
            calibrated=is_calibrated,
            out=out,
            command=_command(),
            progress=progress,
        )
    if as_json:
        typer.echo(json.dumps(export.measured_json(found), indent=2, ensure_ascii=False))
    else:
        print_measured(found)
    return [sizes, *found.notes]


def _command() -> list[str]:
    return ["schedsim", *sys.argv[1:]]
