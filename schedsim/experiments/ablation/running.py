"""Running an ablation: all its cells, what follows from them, and the directory that they fill."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from schedsim.config import RunSettings
from schedsim.errors import ConfigError, SchedsimError
from schedsim.experiments.ablation.burst import Cells, fill_cell
from schedsim.experiments.ablation.capacity import CAPACITY_CELLS, Capacities, Capacity
from schedsim.experiments.ablation.cells import KERNELS, Cell, all_cells
from schedsim.experiments.ablation.factors import CHANGES, KERNEL, Answers, answer
from schedsim.experiments.ablation.notes import (
    notes_on_capacities,
    notes_on_cells,
    notes_on_draws,
    notes_on_step_time,
)
from schedsim.experiments.ablation.serving import served_rates
from schedsim.experiments.ablation.setup import Pool, Setup, Workload, find_pool
from schedsim.experiments.ablation.tables import cells_table, factors_table
from schedsim.predictors import make_predictor
from schedsim.results.directory import RunDirectory
from schedsim.results.manifest import package_version
from schedsim.specs import parse_spec
from schedsim.traces.trace import Trace

SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True)
class Ablated:
    """All cells of an ablation, and what they answer; `notes` are on how it was done."""

    setup: Setup
    pool: Pool
    cells: Cells
    capacities: dict[Cell, Capacity]
    answers: list[Answers]
    notes: list[str]


@dataclass(frozen=True, slots=True)
class Prepared:
    """An ablation that is ready to run: its pool, and the requests of each repeat."""

    setup: Setup
    pool: Pool
    draws: list[Trace]
    notes: list[str]

    @property
    def capacity_cells(self) -> Sequence[Cell]:
        """The cells whose capacity is searched: none without a target."""
        return CAPACITY_CELLS if has_targets(self.setup.engine) else ()

    @property
    def size(self) -> int:
        """How many times `ablate` reports progress."""
        return len(list(all_cells())) + len(self.capacity_cells)


def has_targets(engine: RunSettings) -> bool:
    """Whether requests have a target to meet."""
    return engine.slo_ttft is not None or engine.slo_tpot is not None


def prepare(setup: Setup) -> Prepared:
    """Check an ablation, find its pool and draw its requests; nothing is run yet.

    Raises:
        ConfigError, TraceError: a setting is wrong, or the trace cannot be had.
    """
    for option, value in (("--requests", setup.requests), ("--repeats", setup.repeats)):
        if value < 1:
            raise ConfigError(f"{option} {value} must be at least 1")
    if parse_spec(setup.noise).name == "column":
        raise ConfigError(
            f"--noise {setup.noise}: of a trace the lengths alone are drawn, not its predictions; "
            "name another predictor"
        )
    engine = setup.engine
    on_time = [note for kernel in KERNELS for note in notes_on_step_time(setup, kernel)]
    pool, notes = find_pool(engine)
    workload = Workload(setup, pool.longest)
    draws = [workload.draw(seed) for seed in setup.seeds]
    make_predictor(setup.noise, np.random.default_rng(0), draws[0].output_tokens)
    return Prepared(setup, pool, draws, [*on_time, *notes, *notes_on_draws(setup, draws)])


def ablate(
    prepared: Prepared,
    *,
    out: Path | None = None,
    command: Sequence[str] = (),
    progress: Callable[[], None] = lambda: None,
) -> Ablated:
    """Run every cell and answer from them.

    With `out` the directory has `cells.parquet`, `factors.parquet` and a manifest. What stops it
    leaves the cells that were run; the manifest says so. `progress` is called after each cell.

    Raises:
        ConfigError, PolicyError: a setting is wrong, or a run broke off.
        OutputError: `out` is in use or cannot be written.
    """
    setup, pool, draws = prepared.setup, prepared.pool, prepared.draws
    directory = None if out is None else RunDirectory.create(out, manifest_of(prepared, command))
    cells: Cells = {}
    capacities: dict[Cell, Capacity] = {}
    with kept_if_stopped(directory, lambda: _write_cells(directory, cells, capacities, setup)):
        for cell in all_cells():
            cells[cell] = fill_cell(setup, pool, draws, cell, cells)
            progress()
        searched = Capacities(setup, pool, draws, cells)
        for cell in prepared.capacity_cells:
            capacities[cell] = searched.of(cell)
            progress()
    answers = answers_of(cells, capacities)
    notes = [
        *prepared.notes,
        *notes_on_cells(cells),
        *notes_on_capacities(cells, capacities),
    ]
    if directory is not None:
        _write_cells(directory, cells, capacities, setup)
        directory.write_parquet("factors.parquet", factors_table(answers))
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        directory.finish({"notes": notes, "stopped": None, "finished_at": finished}, complete=True)
    return Ablated(setup, pool, cells, capacities, answers, notes)


def answers_of(cells: Cells, capacities: Mapping[Cell, Capacity]) -> list[Answers]:
    """What the burst says, and what the capacities say, of cells that served in every repeat."""
    burst = {cell: served_rates(filled.runs) for cell, filled in cells.items()}
    found = [answer("burst", {cell: rates for cell, rates in burst.items() if all(rates)})]
    if capacities:
        borne = {
            cell: [rate for rate in capacity.rates if rate is not None]
            for cell, capacity in capacities.items()
            if None not in capacity.rates
        }
        without_kernel = [change for change in CHANGES if change != KERNEL]
        found.append(answer("capacity", borne, without_kernel))
    return found


@contextmanager
def kept_if_stopped(directory: RunDirectory | None, keep: Callable[[], None]) -> Iterator[None]:
    """Call `keep` and finish the directory as incomplete if something stops the block."""
    try:
        yield
    except (KeyboardInterrupt, SchedsimError) as stop:
        if directory is not None:
            keep()
            why = str(stop) or "interrupted by the user"
            directory.finish({"stopped": why}, complete=False)
        raise


def manifest_of(prepared: Prepared, command: Sequence[str]) -> dict[str, Any]:
    """What an ablation is of, as its manifest has it at the start."""
    setup, pool = prepared.setup, prepared.pool
    return {
        "schema_version": SCHEMA_VERSION,
        "command": list(command),
        "trace": setup.trace,
        "requests": [len(draw) for draw in prepared.draws],
        "seeds": list(setup.seeds),
        "engine": setup.engine.model_dump(),
        "noise": setup.noise,
        "kernels": {kernel: setup.step_time(kernel) for kernel in KERNELS},
        "pool": pool._asdict(),
        "naive_batch": pool.naive_batch,
        "version": package_version("schedsim"),
    }


def _write_cells(
    directory: RunDirectory | None,
    cells: Cells,
    capacities: Mapping[Cell, Capacity],
    setup: Setup,
) -> None:
    if directory is not None and cells:
        directory.write_parquet("cells.parquet", cells_table(cells, capacities, list(setup.seeds)))
