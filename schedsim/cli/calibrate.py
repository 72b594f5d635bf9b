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
from schedsim.cli.calibration_output import (
    print_adapted,
    print_fit,
    remark_on_design,
    remark_on_files,
    remark_on_fit,
)
from schedsim.cli.errors import user_errors
from schedsim.cli.options import ENGINE
from schedsim.cli.output_file import Force, check_file
from schedsim.cli.working import working
from schedsim.config import (
    ExecutionSettings,
    RunSettings,
    choose_model,
    make_execution_settings,
    make_settings,
)
from schedsim.costs.fitted_file import FittedFile, read_fitted_file
from schedsim.errors import ConfigError
from schedsim.experiments.adapting import adapt as adapt_file
from schedsim.experiments.calibration import Calibration
from schedsim.experiments.calibration import calibrate as fit_runs
from schedsim.experiments.designed_run import measure
from schedsim.experiments.execution import require_torch
from schedsim.experiments.least_squares import require_scipy
from schedsim.experiments.provenance import check_adaptable
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

schedsim calibrate --adapt llama.json --model llama-3-8b --device cuda --out this-device.json

schedsim run trace.csv --step-time fitted:llama.json
"""

DESIGN = "Design"
DEFAULT_TIME_LIMIT = 240.0
ADAPT_TIME_LIMIT = 20.0
"""One factor needs few batches."""

DEFAULT_PASSES = 10

ALSO_WITH_RUNS = ("out", "runs", "adapt", "no_picture", "force", "as_json", "quiet")
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
    adapt: Annotated[
        str | None,
        typer.Option(
            metavar="FILE",
            help="A file of this command, or the name of one that comes with schedsim: change "
            "nothing of it but how fast the device is.",
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
        float | None,
        typer.Option(
            help="Seconds to measure at most; the model is loaded and warmed up before; default: "
            f"{DEFAULT_TIME_LIMIT:.0f}, with --adapt {ADAPT_TIME_LIMIT:.0f}.",
            rich_help_panel=DESIGN,
            min=0.0,
        ),
    ] = None,
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
    """Measure designed batches on a device, or take runs, and fit or adapt a step-time model.

    Beside the file comes a picture, of the same name with .svg.
    """
    if bool(runs) == (model is not None or weights is not None):
        raise ConfigError(
            "give either the model to measure, with --model or --weights, or the runs to fit, with "
            "--from RUN_DIR, the --out of a `schedsim execute`"
        )
    if runs:
        check_beside_runs(context, ALSO_WITH_RUNS, "measuring")
    to_adapt = None if adapt is None else _to_adapt(adapt, out)
    if to_adapt is None:
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
        calibration = _fitted(stored, to_adapt, quiet)
    else:
        with _folder(keep) as folder:
            stored = [_measured(context.params, to_adapt, folder, quiet)]
            calibration = _fitted(stored, to_adapt, quiet)
            if not quiet:
                remark_on_design(folder, passes)
    _write(calibration, out, picture)
    if as_json:
        typer.echo(out.read_text(encoding="utf-8"), nl=False)
    elif adapt is None:
        print_fit(calibration.file)
    else:
        print_adapted(calibration.file, adapt)
    if not quiet:
        if adapt is None:
            remark_on_fit(calibration.file)
        remark_on_files(out, picture)


def _to_adapt(path: str, out: Path) -> FittedFile:
    """The file of --adapt, which the adapted one does not replace."""
    file, packaged = read_fitted_file(path, "--adapt ")
    if not packaged and out.exists() and out.samefile(path):
        raise ConfigError(
            f"--out {out} is the file to adapt, which the next device needs as it is: give another "
            "name"
        )
    return file


def _measured(
    given: dict[str, Any], to_adapt: FittedFile | None, folder: Path, quiet: bool
) -> StoredRun:
    """The run of designed batches that the options describe."""
    require_torch()
    settings, execution = _settings(given)
    time_limit = given["time_limit"]
    if to_adapt is not None:  # what would be refused after measuring, too
        check_adaptable(to_adapt.provenance, {"model": settings.model}, "what to measure")
    if time_limit is None:
        time_limit = DEFAULT_TIME_LIMIT if to_adapt is None else ADAPT_TIME_LIMIT
    with nullcontext() if quiet else working(f"measuring {settings.model}"):
        return measure(
            settings,
            execution,
            folder,
            passes=given["passes"],
            time_limit=time_limit,
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


def _fitted(runs: list[StoredRun], to_adapt: FittedFile | None, quiet: bool) -> Calibration:
    with nullcontext() if quiet else working("fitting"):
        return fit_runs(runs) if to_adapt is None else adapt_file(to_adapt, runs)


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
