"""`CellValidation`: all that is found of one cell."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from schedsim.costs import FittedCost, StepCost
from schedsim.experiments.runs import Outcome
from schedsim.experiments.validation.budget import error_budget, is_closed_loop, stages_of
from schedsim.experiments.validation.cells import Cell
from schedsim.experiments.validation.divergence import Divergence, divergence_of
from schedsim.experiments.validation.formula_blocks import FormulaBlocks, formula_blocks
from schedsim.experiments.validation.judged import SLOWER, Row, rows_of
from schedsim.experiments.validation.load_shift import FACTORS, Curve, load_shift
from schedsim.experiments.validation.metrics import Margins, figure, mean_summary
from schedsim.experiments.validation.request_errors import request_errors
from schedsim.experiments.validation.saturation import Capacity, Tables, capacity_of
from schedsim.experiments.validation.simulations import Replay, Simulations
from schedsim.experiments.validation.step_errors import step_errors
from schedsim.results.stored_run import StoredRun
from schedsim.results.trail import trail_of

SHIFTED = ("ttft_s.mean", "e2e_s.mean")
"""The latencies whose curves over the load are brought together."""

Summary = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CellValidation:
    """What was found of one cell; `as_json` documents it."""

    cell: Cell
    replays: tuple[Replay, ...]
    divergences: tuple[Divergence, ...]
    outcome: Outcome
    simulated: StoredRun
    rows: dict[str, Row]
    capacity: Capacity | None
    curves: dict[str, Curve]
    requests: dict[str, Any]
    steps: dict[str, Any]
    budget: dict[str, dict[str, float | None]]
    blocks: FormulaBlocks | None
    seen: str | None

    @property
    def shifts(self) -> dict[str, float | None]:
        """The horizontal error of each of `SHIFTED`."""
        return {name: load_shift([curve]) for name, curve in self.curves.items()}

    def as_json(self) -> dict[str, Any]:
        """The cell as it stands in validation.json."""
        cell = self.cell
        return {
            "cell": cell.name,
            "policy": cell.policy,
            "runs": [str(run.path) for run in cell.runs],
            "trace": cell.runs[0].manifest["trace"],
            "device": cell.runs[0].manifest.get("device"),
            "calibration_saw": self.seen,
            "replays": [replay.as_json() for replay in self.replays],
            "divergence": [found.as_json() for found in self.divergences],
            "metrics": {name: row.as_json() for name, row in self.rows.items()},
            "capacity": None if self.capacity is None else self.capacity.as_json(),
            "load_shift": self.shifts,
            "requests": self.requests,
            "steps": self.steps,
            "error_budget": self.budget,
            "formula_blocks": None if self.blocks is None else asdict(self.blocks),
        }


def validate_cell(
    cell: Cell, simulations: Simulations, margins: Margins, draws: int
) -> CellValidation:
    """Simulate the cell with its own times, with the step time, and with more or less than that.

    With `draws`, simulated figures are means of so many simulations that scatter; decisions,
    requests one by one, capacity and load shift are of the one that does not.

    Raises:
        ResultError: a run's steps lack what is needed.
        ConfigError, PolicyError, OutputError: as `run_policy`.
    """
    drawn = simulations.draws(draws)  # first: it may be refused
    replays = [simulations.replay(number) for number in range(1, len(cell.runs) + 1)]
    outcome, simulated = simulations.simulate()
    told = mean_summary(drawn) if drawn else simulated.summary
    measured = [run.summary for run in cell.runs]
    faster, slower = simulations.slower(1 - SLOWER), simulations.slower(1 + SLOWER)
    tables = [Tables(run.summary, run.steps) for run in (*cell.runs, simulated)]
    stages = [
        stages_of(cell, run, replay, simulations.cost, told)
        for run, replay in zip(cell.runs, replays, strict=True)
    ]
    rows = rows_of(measured, told, faster, slower, margins, drawn)
    steps = step_errors(cell.runs, simulations.cost)
    trails = [trail_of(run) for run in cell.runs]
    decided = {
        source: trail_of(simulated, source) for source in dict.fromkeys(t.source for t in trails)
    }
    return CellValidation(
        cell=cell,
        replays=tuple(replays),
        divergences=tuple(divergence_of(trail, decided[trail.source]) for trail in trails),
        outcome=outcome,
        simulated=simulated,
        rows=rows,
        capacity=capacity_of(tables[:-1], tables[-1], margins.throughput),
        curves=_curves(cell, simulations, measured, simulated.summary),
        requests=request_errors(cell.runs, simulated.requests),
        steps=steps,
        budget=error_budget(
            stages, steps["total"], {name: row.amplification for name, row in rows.items()}
        ),
        blocks=formula_blocks(simulations, measured, simulated.summary),
        seen=_seen(simulations.cost, cell.runs),
    )


def _curves(
    cell: Cell, simulations: Simulations, measured: Sequence[Summary], simulated: Summary
) -> dict[str, Curve]:
    """A curve for each of `SHIFTED` that all sides have; none where the load cannot be scaled."""
    arrival = cell.trace.arrival
    if is_closed_loop(cell) or arrival[0] == arrival[-1]:
        return {}
    summaries = [simulated if f == 1.0 else simulations.under_load(f) for f in FACTORS]
    curves = {}
    for name in SHIFTED:
        there = [figure(summary, name) for summary in measured]
        here = [figure(summary, name) for summary in summaries]
        known = [value for value in (*there, *here) if value is not None and value > 0]
        if len(known) == len(there) + len(here):
            curves[name] = Curve(float(np.mean(known[: len(there)])), known[len(there) :])
    return curves


def _seen(cost: StepCost, runs: Sequence[StoredRun]) -> str | None:
    """What of these runs the calibration has seen: a `run`, their `trace`, or nothing."""
    if not isinstance(cost, FittedCost):
        return None
    fitted_to = cost.file.provenance.get("runs") or []
    steps = {run.steps_sha256 for run in runs}
    if any(seen.get("steps_sha256") in steps for seen in fitted_to):
        return "run"
    traces = {run.manifest["trace"].get("sha256") for run in runs} - {None}
    return "trace" if any(seen.get("trace_sha256") in traces for seen in fitted_to) else None
