"""A subset of the cells on a device, and the same runs simulated.

Each cell is executed with the policy, memory manager and requests of the simulation. Unless the
step times of both kernels are given, a cell is simulated with a calibration to the runs of all
other cells that have its kernel: it has seen nothing of the cell.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from schedsim.config import RunSettings
from schedsim.costs import StepCost
from schedsim.costs.fitted import make_fitted
from schedsim.experiments.ablation.burst import Cells
from schedsim.experiments.ablation.cells import (
    BUDDY,
    CONTINUOUS,
    EXACT,
    MAXIMUM,
    NAIVE,
    NOISY,
    PAGED,
    SORTED,
    SORTED_NOISY,
    STATIC,
    Cell,
    own_kernel,
)
from schedsim.experiments.ablation.serving import Served, serve
from schedsim.experiments.ablation.setup import TOKEN_BUDGET, Pool, Setup, settings_of
from schedsim.experiments.calibration import calibrate
from schedsim.experiments.execution import (
    DeviceModel,
    choose_device_sizes,
    execute_policy,
    with_kernels,
)
from schedsim.experiments.runs import RunOptions
from schedsim.experiments.setup import prepare_trace
from schedsim.results.stored_run import StoredRun, load_run
from schedsim.traces.trace import Trace

DEVICE_CELLS: tuple[Cell, ...] = (
    own_kernel(NAIVE, MAXIMUM),
    *(own_kernel(STATIC, memory) for memory in (MAXIMUM, EXACT, PAGED)),
    own_kernel(SORTED, EXACT),
    own_kernel(SORTED_NOISY, PAGED),
    *(own_kernel(CONTINUOUS, memory) for memory in (MAXIMUM, EXACT, NOISY, BUDDY, PAGED)),
    Cell(CONTINUOUS, MAXIMUM, "paged"),
    Cell(CONTINUOUS, EXACT, "paged"),
)
"""What is executed: every way of batching and of giving memory, and both kernels where memory lets
either run."""


class Execution(NamedTuple):
    """A run on the device, and the directory that it filled."""

    served: Served
    directory: Path


@dataclass(frozen=True, slots=True)
class Pair:
    """A cell measured and simulated, a run of each repeat."""

    cell: Cell
    measured: tuple[Served, ...]
    simulated: tuple[Served, ...]


def with_device_sizes(engine: RunSettings, model: DeviceModel) -> tuple[RunSettings, str]:
    """The engine with the blocks that the device has room for and its decision lag; and a note.

    Raises:
        ConfigError: there is no room.
    """
    longest = engine.max_model_len or model.decoder.config.shape.max_model_len
    # A static batch prefills whole prompts, however small the budget.
    largest = max(engine.token_budget or TOKEN_BUDGET, longest)
    sizes = choose_device_sizes(
        engine.model_copy(update={"memory": PAGED.managers[0], "token_budget": largest}), model
    )
    lag = 1 if model.decoder.device.type == "cuda" else 0
    told = sizes.notes[0] if sizes.notes else f"{sizes.blocks} KV blocks, as given"
    return engine.model_copy(update={"blocks": sizes.blocks, "decision_lag": lag}), told


class Device:
    """Executes cells of an ablation on one loaded model, below a directory for the runs."""

    def __init__(
        self,
        setup: Setup,
        pool: Pool,
        draws: Sequence[Trace],
        cells: Cells,
        model: DeviceModel,
        folder: Path,
    ) -> None:
        self._setup, self._pool, self._draws, self._cells = setup, pool, draws, cells
        self._model, self._folder = model, folder
        self._done: dict[tuple[str, str], Execution] = {}

    def measure(self, calibrated: bool, progress: Callable[[], None] = lambda: None) -> list[Pair]:
        """Execute all cells, repeat by repeat, then simulate them; `progress` after each run.

        `calibrated`: the step times of the setup are this device's.

        Raises:
            ConfigError, ResultError: a setting is wrong, or the runs do not make a calibration.
            ExecutionError, PolicyError: the device cannot go on, or a run broke off.
        """
        executed: dict[Cell, list[Execution]] = {cell: [] for cell in self._cells}
        for repeat in range(len(self._draws)):
            for cell in self._cells:
                executed[cell].append(self._execute(cell, repeat))
                progress()
        stored = {
            execution.directory: load_run(execution.directory) for execution in self._done.values()
        }
        pairs = []
        for cell, executions in executed.items():
            cost = None if calibrated else self._held_out(cell, executed, stored)
            simulated = tuple(
                self._simulate(cell, repeat, cost) for repeat in range(len(executions))
            )
            pairs.append(Pair(cell, tuple(e.served for e in executions), simulated))
            progress()
        return pairs

    def _settings(self, cell: Cell, repeat: int) -> RunSettings:
        candidate = self._cells[cell].candidate
        return settings_of(self._setup, self._pool, cell, candidate, self._setup.seeds[repeat])

    def _execute(self, cell: Cell, repeat: int) -> Execution:
        """Run a cell, if not another of the very same settings has run."""
        settings = self._settings(cell, repeat)
        key = cell.kernel, settings.model_copy(update={"step_time": ""}).model_dump_json()
        if key not in self._done:
            directory = self._folder / f"{_folder(cell)}-seed-{settings.seed}"
            outcome = execute_policy(
                prepare_trace(self._draws[repeat], settings),
                settings,
                RunOptions(directory),
                model=with_kernels(self._model, cell.kernel),
            )
            self._done[key] = Execution(Served.of(outcome, settings.block_size), directory)
        return self._done[key]

    def _held_out(
        self,
        cell: Cell,
        executed: dict[Cell, list[Execution]],
        stored: dict[Path, StoredRun],
    ) -> StepCost:
        """A step time fitted to the other cells of the same kernel."""
        own = {execution.directory for execution in executed[cell]}
        others = dict.fromkeys(
            execution.directory
            for other, executions in executed.items()
            for execution in executions
            if other.kernel == cell.kernel and execution.directory not in own
        )
        fitted = calibrate([stored[directory] for directory in others]).file
        return make_fitted(fitted, f"the other cells with the {cell.kernel} kernel")

    def _simulate(self, cell: Cell, repeat: int, cost: StepCost | None) -> Served:
        return serve(self._draws[repeat], self._settings(cell, repeat), cost)


def _folder(cell: Cell) -> str:
    words = f"{cell.scheduling.name} {cell.memory.name} {cell.kernel}".replace(",", "")
    return words.replace(" ", "-")
