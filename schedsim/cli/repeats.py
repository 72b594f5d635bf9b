"""`schedsim run --repeats`: the same policies under several seeds, and a table with intervals."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from schedsim.cli.compare import comparison_table
from schedsim.cli.side_by_side import Job, Output, note, run_jobs
from schedsim.config import RunSettings
from schedsim.errors import ConfigError
from schedsim.experiments.arms import Arm, Measured
from schedsim.experiments.comparison import compare
from schedsim.experiments.runs import folder_names, run_policy
from schedsim.experiments.setup import prepare_trace
from schedsim.results import Result
from schedsim.specs import parse_spec
from schedsim.traces import Trace
from schedsim.traces.generators.arrivals import Burst, Deterministic, parse_arrivals

_SEEDED_PREDICTORS = ("lognormal", "rank", "bins")


def check_random(settings: RunSettings) -> None:
    """Refuse repeats of a run that draws nothing from its seed: all would be the same.

    Raises:
        ConfigError: it is one.
    """
    draws_arrivals = settings.arrivals is not None and not isinstance(
        parse_arrivals(settings.arrivals), Burst | Deterministic
    )
    draws = draws_arrivals or settings.step_noise
    if not draws and parse_spec(settings.predictor).name not in _SEEDED_PREDICTORS:
        raise ConfigError(
            "--repeats: every repeat would be the same run, for nothing in it is drawn at random; "
            "give --arrivals (for example --arrivals poisson:rate=5) or a --predictor that errs. "
            "One run of each policy will do: schedsim compare takes its intervals from batches"
        )


def run_repeated(
    trace: Trace,
    settings: Sequence[RunSettings],
    directories: Sequence[Path | None],
    output: Output,
    repeats: int,
) -> None:
    """Run each policy under each seed, seed after seed, and print the comparison.

    Each seed's arrivals are drawn once, so policies differ in nothing else. A policy's runs stand
    in folders `seed-N` below its own.

    Raises:
        typer.Exit: as `run_all`.
    """
    names = folder_names([chosen.policy for chosen in settings])
    first = settings[0].seed
    jobs, arms = [], []
    for seed in range(first, first + repeats):
        seeded = [chosen.model_copy(update={"seed": seed}) for chosen in settings]
        load = prepare_trace(trace, seeded[0])
        for name, chosen, directory in zip(names, seeded, directories, strict=True):
            below = None if directory is None else directory / f"seed-{seed}"
            jobs.append(Job(f"{name}, seed {seed}", load, chosen, below))
            arms.append(name)

    def show(results: dict[str, Result]) -> Table:
        runs: dict[str, list[Measured]] = {name: [] for name in names}
        for arm, job in zip(arms, jobs, strict=True):
            if job.label in results:
                config = job.settings.model_dump()
                runs[arm].append(Measured.of_result(config, results[job.label]))
        comparison = compare([Arm(name, tuple(runs[name])) for name in names])
        if not output.quiet:
            for text in comparison.notes:
                note(text)
        return comparison_table(comparison)

    run_jobs(jobs, output, run_policy, unit="s simulated", show=show)
