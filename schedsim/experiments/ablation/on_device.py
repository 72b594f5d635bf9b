"""An ablation on a device: the cells of `DEVICE_CELLS` measured and simulated, and the directory
that they fill."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from schedsim.errors import ConfigError
from schedsim.experiments.ablation.burst import Cells, fill_cell
from schedsim.experiments.ablation.cells import Cell
from schedsim.experiments.ablation.factors import Answers, answer
from schedsim.experiments.ablation.measuring import DEVICE_CELLS, Device, Pair
from schedsim.experiments.ablation.notes import notes_on_cells, notes_on_ranges
from schedsim.experiments.ablation.running import (
    Prepared,
    kept_if_stopped,
    manifest_of,
)
from schedsim.experiments.ablation.serving import Served, served_rates
from schedsim.experiments.ablation.setup import Pool, Setup
from schedsim.experiments.ablation.tables import factors_table, measured_table
from schedsim.experiments.execution import DeviceModel
from schedsim.results.directory import RunDirectory


@dataclass(frozen=True, slots=True)
class MeasuredCells:
    """The cells that a device ran beside their simulation, and what either answers.

    `calibrated` says that the step times were given, not fitted to the other cells.
    """

    setup: Setup
    pool: Pool
    device: str
    calibrated: bool
    pairs: list[Pair]
    measured: Answers
    simulated: Answers
    notes: list[str]


def measure(
    prepared: Prepared,
    model: DeviceModel,
    *,
    calibrated: bool,
    out: Path | None = None,
    command: Sequence[str] = (),
    progress: Callable[[], None] = lambda: None,
) -> MeasuredCells:
    """Execute the cells of `DEVICE_CELLS` on a device and simulate them.

    Sizes of static batches and memory managers are those that are best in simulation. With `out`
    the directory has `measured.parquet`, `factors.parquet`, a manifest, and below `runs` the
    results of every execution.

    Raises:
        ConfigError, ResultError: a setting is wrong, or the runs do not make a calibration.
        ExecutionError, PolicyError: the device cannot go on, or a run broke off.
        OutputError: `out` is in use or cannot be written.
    """
    setup, pool, draws = prepared.setup, prepared.pool, prepared.draws
    manifest = manifest_of(prepared, command) | {
        "execution": model.described,
        "device": model.device,
    }
    directory = None if out is None else RunDirectory.create(out, manifest)
    with kept_if_stopped(directory, lambda: None), tempfile.TemporaryDirectory() as temporary:
        cells: Cells = {}
        for cell in DEVICE_CELLS:
            cells[cell] = fill_cell(setup, pool, draws, cell, cells)
            progress()
            _check_serves(cell, cells[cell].runs)
        folder = Path(temporary) if out is None else out / "runs"
        device = Device(setup, pool, draws, cells, model, folder)
        pairs = device.measure(calibrated, progress)
    burst = {
        side: answer(side, {pair.cell: served_rates(getattr(pair, side)) for pair in pairs})
        for side in ("measured", "simulated")
    }
    simulated = [run for pair in pairs for run in pair.simulated]
    notes = [*prepared.notes, *notes_on_cells(cells), *notes_on_ranges(simulated)]
    if directory is not None:
        directory.write_parquet("measured.parquet", measured_table(pairs, list(setup.seeds)))
        directory.write_parquet("factors.parquet", factors_table(list(burst.values())))
        finished = datetime.now(UTC).isoformat(timespec="seconds")
        directory.finish({"notes": notes, "stopped": None, "finished_at": finished}, complete=True)
    return MeasuredCells(
        setup, pool, model.device, calibrated, pairs, burst["measured"], burst["simulated"], notes
    )


def _check_serves(cell: Cell, runs: Sequence[Served]) -> None:
    if not all(served_rates(runs)):
        raise ConfigError(
            f"{cell}: its memory never has room for a request of some repeat; raise --blocks"
        )


def measured_size(prepared: Prepared) -> int:
    """How many times `measure` reports progress."""
    return (2 + len(prepared.draws)) * len(DEVICE_CELLS)
