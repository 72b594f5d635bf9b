"""`schedsim ablate`: paging or scheduling? Every combination, and what each part contributes."""

import json
import sys
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from schedsim.cli import options
from schedsim.cli.ablate_tables import print_ablation
from schedsim.cli.errors import user_errors
from schedsim.cli.options import ENGINE, LOAD, OUTPUT, parse_slo
from schedsim.cli.progress import count_progress
from schedsim.cli.side_by_side import note
from schedsim.cli.working import working
from schedsim.config import make_settings
from schedsim.experiments.ablation.kernels import CONTIGUOUS, PAGED
from schedsim.experiments.ablation.running import Ablated, prepare
from schedsim.experiments.ablation.running import ablate as run_ablation
from schedsim.experiments.ablation.setup import DEFAULT_TRACE, Setup
from schedsim.results.directory import check_unused, write_whole
from schedsim.sweep.traces import check_trace

EXAMPLES = """\
Examples:

schedsim ablate --repeats 1  (the default workload, once: half a minute)

schedsim ablate generate:sharegpt,requests=1000 --blocks 4000 --out scarce

schedsim ablate trace.csv --requests 500 --slo ttft=2,tpot=0.1  (capacities, too)
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
        str,
        typer.Option(
            help="Step time with the paged kernel: a spec as for --step-time of `schedsim run`; "
            "default: a roofline at the rates measured on an H100.",
            rich_help_panel=KERNELS,
            show_default=False,
        ),
    ] = PAGED,
    contiguous_kernel: Annotated[
        str,
        typer.Option(
            help="The same with the contiguous kernel.",
            rich_help_panel=KERNELS,
            show_default=False,
        ),
    ] = CONTIGUOUS,
    blocks: options.Blocks = None,
    block_size: options.BlockSize = 16,
    max_seqs: options.MaxSeqs = 1024,
    token_budget: options.TokenBudget = None,
    max_model_len: options.MaxModelLen = None,
    requests: Annotated[
        int,
        typer.Option(
            help="Requests that each repeat draws from a file; a recipe says its own.",
            rich_help_panel=LOAD,
        ),
    ] = 1000,
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
    if out is not None:
        check_unused(out)
    setup = Setup(
        engine=make_settings(
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
        ),
        trace=trace,
        requests=requests,
        repeats=repeats,
        noise=noise,
        paged_kernel=paged_kernel,
        contiguous_kernel=contiguous_kernel,
    )
    with nullcontext() if quiet else working("drawing the requests"):
        prepared = prepare(setup)
    with count_progress("ablate", prepared.size, quiet, "cells") as progress:
        ablated = run_ablation(
            prepared, out=out, command=["schedsim", *sys.argv[1:]], progress=progress
        )
    if as_json:
        from schedsim.experiments.ablation.export import as_json as everything

        typer.echo(json.dumps(everything(ablated), indent=2, ensure_ascii=False))
    else:
        print_ablation(ablated)
    told = list(ablated.notes)
    if out is not None:
        told += _draw(ablated, out)
    if not quiet:
        for text in told:
            note(text)


def _draw(ablated: Ablated, out: Path) -> list[str]:
    """Write the waterfall where it can be drawn; notes on what was written."""
    if find_spec("altair") is None or find_spec("vl_convert") is None:
        from schedsim.report.figures import INSTALL

        return [f"no waterfall.svg without altair and vl-convert-python: {INSTALL}", _where(out)]
    from schedsim.experiments.ablation.export import waterfall_of
    from schedsim.report.export import svg_of

    figure = waterfall_of(ablated.cells, ablated.answers[0].factors[0])
    write_whole(out / "waterfall.svg", svg_of(figure))
    return [_where(out)]


def _where(out: Path) -> str:
    return f"results in {out}"
