"""The simulations of a cell: replays of its runs, the free one, and what-ifs without files."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from schedsim.config import RunSettings
from schedsim.costs import StepCost, load_gpu, load_model, make_step_cost
from schedsim.costs.noise import StepNoise
from schedsim.errors import ConfigError, ReplayError
from schedsim.experiments.runs import Outcome, RunOptions, run_policy, run_prepared
from schedsim.experiments.setup import choose_sizes, own_block_size, prepare_run
from schedsim.experiments.step_time import noise_stream, scatter_of
from schedsim.experiments.validation.cells import Cell
from schedsim.experiments.validation.scaled_cost import scaled
from schedsim.results.decision_file import DecisionFile
from schedsim.results.difference import Comparison, compare_decisions
from schedsim.results.record import RunRecord
from schedsim.results.stored_run import StoredRun, load_run
from schedsim.results.trail import of_sizes, source_of, trail_of
from schedsim.traces.transforms import scale_time

SIMULATED, REPLAYED = "simulated", "replayed"
"""Folders of a cell below that of the validation; replays are numbered."""

DRAWS = "--draws"
"""The option that asks for simulations that scatter."""

_OUTCOMES = (
    *("status", "admitted", "first_token", "finished"),
    *("preemptions", "cached_tokens", "recomputed_tokens", "requeue_s"),
)


@dataclass(frozen=True, slots=True)
class Replay:
    """A run simulated with its own times: what differs is an error of the logic, not of time.

    `error` says in which iteration other batches ran, so that the replay broke off. Else
    `first_difference` is the first iteration that was decided otherwise, as far as the run wrote
    its decisions down (`compared`), and `requests_differ` the number of requests to which
    something else happened. `comparison` shows the difference where both wrote whole records.
    """

    path: Path
    compared: str
    error: str | None
    first_difference: int | None
    requests_differ: int
    comparison: Comparison | None
    summary: dict[str, Any]
    record: RunRecord

    @property
    def same(self) -> bool:
        """Whether nothing differs, as far as could be compared."""
        return self.error is None and self.first_difference is None and not self.requests_differ

    def as_json(self) -> dict[str, Any]:
        """What was compared and what came of it."""
        return {
            "same": self.same,
            "compared": self.compared,
            "error": self.error,
            "first_difference": self.first_difference,
            "requests_differ": self.requests_differ,
            "decisions": None if self.comparison is None else self.comparison.as_json(),
        }


class Simulations:
    """What is simulated of a cell under one step time; equal calls give equal runs."""

    def __init__(self, cell: Cell, step_time: str, folder: Path, command: Sequence[str]) -> None:
        """`folder` is the cell's own; `step_time` a spec.

        Raises:
            ConfigError: the step time is wrong, or is a record.
        """
        self._cell = cell
        self._step_time = step_time
        self._folder = folder
        self._command = command
        settings = cell.settings
        model, gpu = load_model(settings.model), load_gpu(settings.gpu)
        size = own_block_size(settings, model)
        self.cost: StepCost = make_step_cost(step_time, model, gpu, settings.tensor_parallel, size)

    @property
    def engine_blocks(self) -> int:
        """The KV blocks of the engine that was measured."""
        blocks = self._cell.settings.blocks
        assert blocks is not None, "a cell's sizes are those that came out"
        return blocks

    def replay(self, number: int) -> Replay:
        """Simulate the cell's run of this number, from 1, with its own times.

        Raises:
            ConfigError, PolicyError, OutputError: as `run_policy`.
        """
        run = self._cell.runs[number - 1]
        path = self._folder / f"{REPLAYED}-{number}"
        settings = self._with_time(f"recorded:{run.path}")
        prepared = prepare_run(self._cell.trace, settings, command=self._command)
        outcome = _ended(run_prepared(prepared, self._options([run], path)), ReplayError)
        compared = trail_of(run)
        first_difference, differ, comparison = None, 0, None
        if outcome.error is None:
            replayed = load_run(path)
            first = (
                compared.first_difference(trail_of(replayed)),
                of_sizes(run).first_difference(of_sizes(replayed)),
            )
            first_difference = min((i for i in first if i is not None), default=None)
            differ = _requests_differ(run, replayed)
        if run.has_decisions:
            comparison = compare_decisions(DecisionFile(run.path), DecisionFile(path, path.name))
        return Replay(
            path=path,
            compared=compared.source,
            error=None if outcome.error is None else str(outcome.error),
            first_difference=first_difference,
            requests_differ=differ,
            comparison=comparison,
            summary=outcome.result.summary,
            record=prepared.backend.record(outcome.stopped),
        )

    def simulate(self) -> tuple[Outcome, StoredRun]:
        """The free simulation: every decision is taken anew, at the times that the model says.

        Raises:
            ConfigError, PolicyError, OutputError: as `run_policy`.
        """
        path = self._folder / SIMULATED
        options = self._options(self._cell.runs, path)
        settings = self._with_time(self._step_time)
        outcome = _ended(run_policy(self._cell.trace, settings, options))
        return outcome, load_run(path)

    def draws(self, count: int) -> list[dict[str, Any]]:
        """The summaries of so many free simulations whose iterations scatter as those of the
        device did; of any count the first are the same.

        Raises:
            ConfigError: the step time is no calibration, or one without scatter.
        """
        if not count:
            return []
        scatter, settings = scatter_of(self.cost, DRAWS), self._with_time(self._step_time)
        noises = [
            StepNoise(scatter, np.random.default_rng(stream))
            for stream in noise_stream(settings).spawn(count)
        ]
        return [
            _ended(run_policy(self._cell.trace, settings, noise=noise)).result.summary
            for noise in noises
        ]

    def slower(self, factor: float) -> dict[str, Any]:
        """The summary if every iteration took `factor` times as long."""
        cost = scaled(self.cost, factor)
        settings = self._with_time(self._step_time)
        outcome = _ended(run_policy(self._cell.trace, settings, cost=cost))
        return outcome.result.summary

    def under_load(self, factor: float) -> dict[str, Any]:
        """The summary if the same requests came `factor` times as fast; the trace has arrivals."""
        trace = scale_time(self._cell.trace, factor)
        return _ended(run_policy(trace, self._with_time(self._step_time))).result.summary

    def with_formula_blocks(self) -> tuple[int, dict[str, Any]] | None:
        """How many KV blocks the memory formula gives, and the summary with these.

        None where the count is not the device's: it was given, or a CPU ran it.
        """
        run = self._cell.runs[0]
        device = str(run.execution.get("device"))
        if run.manifest["config"].get("blocks") is not None or not device.startswith("cuda"):
            return None
        settings = self._with_time(self._step_time).model_copy(update={"blocks": None})
        try:
            sizes = choose_sizes(settings, load_model(settings.model), load_gpu(settings.gpu))
        except ConfigError:  # the formula finds no room where the device had some
            return None
        settings = settings.model_copy(update={"blocks": sizes.blocks})
        outcome = _ended(run_policy(self._cell.trace, settings))
        return sizes.blocks, outcome.result.summary

    def _with_time(self, source: str) -> RunSettings:
        return self._cell.settings.model_copy(update={"step_time": source})

    def _options(self, runs: Sequence[StoredRun], path: Path) -> RunOptions:
        """Write the most that each of the runs wrote, so that it can be compared with all."""
        wrote = [source_of(run) for run in runs]
        return RunOptions(path, "decisions" in wrote, "trail" in wrote, command=self._command)


def _ended(outcome: Outcome, expected: type[Exception] | None = None) -> Outcome:
    """The outcome of a simulation that came to its end, or to the `expected` error."""
    if outcome.is_interrupted:
        raise KeyboardInterrupt
    if outcome.error is not None and (expected is None or not isinstance(outcome.error, expected)):
        raise outcome.error
    return outcome


def _requests_differ(run: StoredRun, replayed: StoredRun) -> int:
    columns = [name for name in _OUTCOMES if name in run.requests.column_names]
    there, here = (r.requests.select(columns).to_pylist() for r in (run, replayed))
    return sum(a != b for a, b in zip(there, here, strict=True))
