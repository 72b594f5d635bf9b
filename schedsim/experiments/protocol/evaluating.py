"""Evaluating a protocol: every cell that was measured, validated, and what the bar says of it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schedsim.errors import ResultError
from schedsim.experiments.protocol.index import CapacityEntry, CellEntry, load_indices
from schedsim.experiments.protocol.loads import load_source
from schedsim.experiments.protocol.plan import PlannedCell, Protocol
from schedsim.experiments.validation.budget import TOLD, largest_cause
from schedsim.experiments.validation.cell_validation import CellValidation
from schedsim.experiments.validation.cells import make_cells
from schedsim.experiments.validation.choice import Choice
from schedsim.experiments.validation.metrics import Margins
from schedsim.experiments.validation.validating import Validation, validate
from schedsim.results.stored_run import load_run
from schedsim.traces import Trace

HELD = tuple(f"{name}.{part}" for name in ("ttft_s", "tpot_s", "e2e_s") for part in ("mean", "p90"))
"""The metrics that are held to the margin below saturation."""

CHOSEN = ("ttft_s.mean", "tpot_s.mean", "e2e_s.mean", "ttft_s.p90", "tpot_s.p90", "e2e_s.p90")

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Rows of cells below saturation, of capacities, and of choices, in the order of the file.

    `missing` names in words what has fewer runs than the protocol wants.
    """

    cells: list[Row]
    capacities: list[Row]
    choices: list[Row]
    step_time: dict[str, Any]
    missing: list[str]

    @property
    def beyond(self) -> list[str]:
        """The cells of which a metric is beyond both margin and spread."""
        return [row["cell"] for row in self.cells if row["place"] in ("beyond", "far")]

    def as_json(self) -> dict[str, Any]:
        """Everything, small enough to be kept with the code."""
        return {
            "step_time": self.step_time,
            "missing": self.missing,
            "cells": self.cells,
            "capacities": self.capacities,
            "choices": self.choices,
        }


def evaluate(
    protocol: Protocol,
    measured: Sequence[Path],
    traces: Path,
    step_time: str,
    folder: Path,
    *,
    margins: Margins | None = None,
    progress: Callable[[], None] = lambda: None,
) -> Evaluation:
    """Validate what is in the folders `measured`; simulations write below `folder`.

    `progress` is called after each of `num_validations`.

    Raises:
        ResultError: nothing is measured yet, or a run is damaged.
        ConfigError, TraceError, PolicyError, OutputError: as `validate`.
    """
    index = load_indices(measured)
    sources = _Sources(protocol, traces)
    missing, cells, choices, capacities = [], [], [], []
    described: dict[str, Any] = {}
    for place, group in enumerate(_groups(protocol)):
        runs = {cell.name: _runs(index.cells.get(cell.name)) for cell in group}
        for cell in group:
            missing += _lacking(cell.name, runs[cell.name], protocol.repeats_of(cell))
        there = [cell for cell in group if runs[cell.name]]
        if there:
            into = folder / f"group-{place}"
            found = _validate(there, runs, sources, step_time, into, margins, protocol.draws)
            described = found.cost.describe()
            cells += [_cell_row(c, f) for c, f in zip(there, found.cells, strict=True)]
            choices += [_choice_row(group[0], choice) for choice in found.choices]
        progress()
    for place, (key, owner) in enumerate(protocol.capacities().items()):
        paths = _runs(index.capacities.get(key))
        missing += _lacking(f"capacity of {key}", paths, protocol.capacity_repeats)
        if paths:
            into = folder / f"capacity-{place}"
            found = _validate([owner], {owner.name: paths}, sources, step_time, into, margins, 0)
            described = found.cost.describe()
            capacities.append(_capacity_row(key, owner, found.cells[0]))
        progress()
    if not described:
        raise ResultError(f"{measured[0]} holds no run of this protocol; measure it first")
    return Evaluation(cells, capacities, choices, described, missing)


def num_validations(protocol: Protocol) -> int:
    """How many validations `evaluate` makes of it: one of each choice or other cell, and one of
    each capacity."""
    return len(list(_groups(protocol))) + len(protocol.capacities())


class _Sources:
    """The traces of a protocol, each read once."""

    def __init__(self, protocol: Protocol, folder: Path) -> None:
        self._protocol, self._folder = protocol, folder
        self._loaded: dict[str, Trace] = {}

    def of(self, name: str) -> Trace:
        if name not in self._loaded:
            self._loaded[name] = load_source(self._protocol.traces[name], self._folder)
        return self._loaded[name]


def _groups(protocol: Protocol) -> Iterator[list[PlannedCell]]:
    """Cells of one choice together, every other one alone."""
    for cell in protocol.cells:
        if cell.choice is None:
            yield [cell]
        else:
            group = [other for other in protocol.cells if other.choice == cell.choice]
            if group[0] is cell:
                yield group


def _runs(entry: CellEntry | CapacityEntry | None) -> list[Path]:
    """The runs of a cell or a capacity; none unless all that are booked are there."""
    paths = [] if entry is None else [Path(run) for run in entry.runs]
    return paths if all(path.is_dir() for path in paths) else []


def _lacking(name: str, runs: Sequence[Path], planned: int) -> list[str]:
    if len(runs) >= planned:
        return []
    return [f"{name} ({len(runs)} of {planned} runs)" if runs else name]


def _validate(
    cells: Sequence[PlannedCell],
    paths: dict[str, list[Path]],
    sources: _Sources,
    step_time: str,
    folder: Path,
    margins: Margins | None,
    draws: int,
) -> Validation:
    found = []
    for cell in cells:
        runs = [load_run(path) for path in paths[cell.name]]
        made = make_cells(runs, sources.of(cell.trace))
        if len(made) != 1:
            raise ResultError(
                f"{cell.name}: its runs were not asked for alike; measure it anew in another folder"
            )
        found.append(made[0])
    return validate(found, step_time, folder, margins=margins, draws=draws)


def _cell_row(cell: PlannedCell, found: CellValidation) -> Row:
    metrics = {name: _metric(name, found) for name in HELD}
    order = ("margin", "spread", "beyond", "far")
    places = [figures["place"] for figures in metrics.values() if figures["place"] is not None]
    return {
        "cell": cell.name,
        "kind": cell.kind,
        "trace": cell.trace,
        "policy": cell.policy,
        "load": cell.load,
        **_common(found),
        "place": max(places, key=order.index) if places else None,
        "metrics": metrics,
        "load_shift": found.shifts,
    }


def _capacity_row(key: str, cell: PlannedCell, found: CellValidation) -> Row:
    capacity = found.capacity
    return {
        "capacity": key,
        "trace": cell.trace,
        "policy": cell.policy,
        **_common(found),
        "tokens_per_s": None if capacity is None else capacity.as_json(),
        "cause": largest_cause(found.budget["total_tokens_per_s"]),
    }


def _common(found: CellValidation) -> Row:
    return {
        "repeats": len(found.cell.runs),
        "devices": [run.device_uuid for run in found.cell.runs],
        "requests": len(found.cell.trace),
        "stable": found.cell.runs[0].summary["stable"],
        "in_sample": found.seen,
        "replay_same": all(replay.same for replay in found.replays),
        "first_difference": [d.first_difference for d in found.divergences],
        "order": [d.order for d in found.divergences],
        "step_time_total": found.steps["total"],
    }


def _metric(name: str, found: CellValidation) -> Row:
    row = found.rows[name]
    agreed = row.agreement
    if agreed is None:
        return {"error": None, "place": None}
    return {
        "measured": row.measured,
        "simulated": row.simulated,
        "scatter": row.scatter,
        "error": agreed.error,
        "spread": agreed.spread,
        "half_width": agreed.half_width,
        "place": agreed.place,
        "verdict": agreed.verdict,
        "amplification": row.amplification,
        "budget": {part: found.budget[name][part] for part in TOLD},
        "cause": largest_cause(found.budget[name]),
    }


def _choice_row(cell: PlannedCell, choice: Choice) -> Row:
    return {"choice": cell.choice, "trace": cell.trace, **choice.as_json(), "real": choice.is_real}
