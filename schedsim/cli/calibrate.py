"""`schedsim calibrate`: a step-time model from designed batches, or from measured runs."""

import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated, Any

import typer

from schedsim.cli import options
from schedsim.cli.beside_runs import check_beside_runs
from schedsim.cli.calibration_tables import coefficients_table, regions_table, residuals_table
from schedsim.cli.console import stdout_console
from schedsim.cli.errors import user_errors
from schedsim.cli.options import ENGINE
from schedsim.cli.output_file import Force, check_file
from schedsim.cli.side_by_side import note
from schedsim.cli.working import working
from schedsim.config import (
    ExecutionSettings,
    RunSettings,
    choose_model,
    make_execution_settings,
    make_settings,
)
from schedsim.errors import ConfigError
from schedsim.experiments.calibration import Calibration
from schedsim.experiments.calibration import calibrate as fit_runs
from schedsim.experiments.design_file import read_design
from schedsim.experiments.designed_run import measure
from schedsim.experiments.execution import require_torch
from schedsim.experiments.least_squares import require_scipy
from schedsim.report.calibration import draw
from schedsim.report.figures import is_installed
from schedsim.results.directory import check_unused, write_whole
from schedsim.results.stored_run import StoredRun, load_run

EXAMPLES = """\
Examples:

schedsim calibrate --model llama-3-8b --device cuda --out llama.json

schedsim calibrate --model tiny --device cpu --max-seqs 8 --token-budget 256 --max-model-len 512 \\
--time-limit 10 --out cpu.json

schedsim calibrate --model llama-3-8b --device cuda --memory paged,host_blocks=4000 --out llama.json

schedsim calibrate --from light --from heavy --out h100.json

schedsim run trace.csv --step-time fitted:llama.json
"""

DESIGN = "Design"
DEFAULT_TIME_LIMIT = 240.0
DEFAULT_PASSES = 10

ALSO_WITH_RUNS = ("out", "runs", "no_picture", "force", "as_json", "quiet")
"""What can be given beside runs; the rest says what is measured."""


@user_errors()
def calibrate(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="JSON file for  --step-time fitted:FILE.")],
    runs: Annotated[
        list[Path] | None,
        typer.Option(
            "--from",
            help="Directory of a finished run, to fit to it and measure nothing; may stand "
            "several times.",
        ),
    ] = None,
    model: Annotated[
        str | None,
        typer.Option(
            help="Name, see `schedsim models`, or Hugging Face config.json, to measure with random "
            "weights.",
            rich_help_panel=ENGINE,
        ),
    ] = None,
    weights: options.Weights = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    attention: options.Attention = None,
    kernels: options.Kernels = None,
    temperature: options.Temperature = 0.0,
    threads: options.Threads = None,
    memory: Annotated[
        str | None,
        typer.Option(
            help="Memory manager of the KV cache: name,parameter=value,…; `schedsim memories` "
            "lists them; default: paged.",
            rich_help_panel=ENGINE,
        ),
    ] = None,
    blocks: options.Blocks = None,
    block_size: options.BlockSize = 16,
    max_seqs: options.MaxSeqs = 256,
    token_budget: Annotated[
        int | None,
        typer.Option(
            help="Tokens of the largest batch that is measured; default: 16384.",
            rich_help_panel=ENGINE,
        ),
    ] = None,
    max_model_len: options.MaxModelLen = None,
    decision_lag: Annotated[
        int | None,
        typer.Option(
            help="0: decide when the iteration before has ended; 1: when it begins; default: 1 on "
            "a GPU, 0 on a CPU.",
            rich_help_panel=ENGINE,
        ),
    ] = None,
    time_limit: Annotated[
        float,
        typer.Option(
            help="Seconds to measure at most; the model is loaded and warmed up before.",
            rich_help_panel=DESIGN,
            min=0.0,
        ),
    ] = DEFAULT_TIME_LIMIT,
    passes: Annotated[
        int,
        typer.Option(
            help="How often to run the design at most, each time in another order.",
            rich_help_panel=DESIGN,
            min=1,
            max=1000,
        ),
    ] = DEFAULT_PASSES,
    seed: Annotated[
        int, typer.Option(help="Of the design and of random weights.", rich_help_panel=DESIGN)
    ] = 0,
    keep: Annotated[
        Path | None,
        typer.Option(
            help="New directory for the run that was measured, to fit again with --from.",
            rich_help_panel=DESIGN,
        ),
    ] = None,
    no_picture: Annotated[
        bool,
        typer.Option("--no-picture", help="Draw no picture of fitted against measured times."),
    ] = False,
    force: Force = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the file's content.")] = False,
    quiet: options.Quiet = False,
) -> None:
    """Measure designed batches on a device, or take runs, and fit a step-time model to them.

    Beside the file comes a picture, of the same name with .svg.
    """
    if bool(runs) == (model is not None or weights is not None):
        raise ConfigError(
            "give either the model to measure, with --model or --weights, or the runs to fit, with "
            "--from RUN_DIR, the --out of a `schedsim execute`"
        )
    if runs:
        check_beside_runs(context, ALSO_WITH_RUNS, "measuring")
    require_scipy()
    picture = None if no_picture else out.with_suffix(".svg")
    if picture == out:
        raise ConfigError(
            f"--out {out}: the picture gets this name; call the file .json, or leave the picture "
            "out with --no-picture"
        )
    for file in (out, picture):
        if file is not None:
            check_file(file, force)
    if runs:
        stored = [load_run(run) for run in runs]
        calibration = _fitted(stored, quiet)
    else:
        with _folder(keep) as folder:
            stored = [_measured(context.params, folder, quiet)]
            calibration = _fitted(stored, quiet)
            if not quiet:
                _remark_on_design(folder, passes)
    _write(calibration, out, picture)
    if as_json:
        typer.echo(out.read_text(encoding="utf-8"), nl=False)
    else:
        _print(calibration)
    if not quiet:
        _remark(calibration, out, picture)


def _measured(given: dict[str, Any], folder: Path, quiet: bool) -> StoredRun:
    """The run of designed batches that the options describe."""
    require_torch()
    settings, execution = _settings(given)
    with nullcontext() if quiet else working(f"measuring {settings.model}"):
        return measure(
            settings,
            execution,
            folder,
            passes=given["passes"],
            time_limit=given["time_limit"],
            command=["schedsim", *sys.argv[1:]],
        )


def _settings(given: dict[str, Any]) -> tuple[RunSettings, ExecutionSettings]:
    of_device = {name: given[name] for name in ExecutionSettings.model_fields}
    weights = of_device.pop("weights")
    execution = make_execution_settings(
        **of_device, weights=None if weights is None else str(weights)
    )
    alike = (
        "memory", "blocks", "block_size", "max_seqs", "token_budget", "max_model_len",
        "decision_lag", "seed",
    )  # fmt: skip
    settings = make_settings(
        model=choose_model(given["model"], execution), **{name: given[name] for name in alike}
    )
    return settings, execution


def _fitted(runs: list[StoredRun], quiet: bool) -> Calibration:
    with nullcontext() if quiet else working("fitting"):
        return fit_runs(runs)


@contextmanager
def _folder(keep: Path | None) -> Iterator[Path]:
    """Where the run is written: a new directory, or one that goes away."""
    if keep is not None:
        check_unused(keep)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="schedsim-") as scratch:
        yield Path(scratch) / "run"


def _write(calibration: Calibration, out: Path, picture: Path | None) -> None:
    write_whole(out, calibration.file.model_dump_json(indent=2) + "\n")
    if picture is not None and is_installed():
        draw(calibration, picture)


def _print(calibration: Calibration) -> None:
    console = stdout_console()
    console.print(coefficients_table(calibration.file))
    console.print(residuals_table(calibration.file))
    regions = regions_table(calibration.file)
    if regions is not None:
        console.print(regions)


def _remark_on_design(folder: Path, passes: int) -> None:
    design = read_design(folder)
    assert design is not None, "a run of designed batches has a design"
    whole = f"the design {design.passes} times" if design.passes else "not the whole design"
    bound = "--time-limit" if design.passes < passes else "--passes"
    note(
        f"measured {design.batches:,} batches, {whole} ({design.planned:,} batches); "
        f"more {bound} measures more"
    )
    if design.skipped:
        note(f"{design.skipped:,} batches found no room in the cache and were left out")


def _remark(calibration: Calibration, out: Path, picture: Path | None) -> None:
    for warning in calibration.file.warnings:
        note(warning)
    if picture is not None:
        if is_installed():
            note(f"drew {picture}")
        else:
            note("no picture: pip install 'schedsim[report]' brings what draws it")
    note(f"wrote {out}; use it with  --step-time fitted:{out}")
