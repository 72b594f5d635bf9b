"""`validate`: cells of measured runs against their simulations, each alone and all together."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from schedsim.costs import StepCost
from schedsim.experiments.validation.cell_validation import CellValidation, validate_cell
from schedsim.experiments.validation.cells import Cell
from schedsim.experiments.validation.choice import Choice, choose
from schedsim.experiments.validation.metrics import JUDGED, Margins
from schedsim.experiments.validation.rates import AtRate, RateCurve, rate_curve
from schedsim.experiments.validation.simulations import Simulations
from schedsim.results.summary import SCHEMA_VERSION


@dataclass(frozen=True, slots=True)
class Validation:
    """What `validate` found of all cells together."""

    cells: tuple[CellValidation, ...]
    choices: tuple[Choice, ...]
    curves: tuple[RateCurve, ...]
    cost: StepCost
    margins: Margins

    @property
    def replays_same(self) -> bool:
        """Whether every replay took every decision again."""
        return all(replay.same for found in self.cells for replay in found.replays)

    def as_json(self) -> dict[str, Any]:
        """The content of validation.json."""
        return {
            "schema_version": SCHEMA_VERSION,
            "step_time": self.cost.describe(),
            "margins": asdict(self.margins),
            "cells": [found.as_json() for found in self.cells],
            "choices": [choice.as_json() for choice in self.choices],
            "curves": [curve.as_json() for curve in self.curves],
        }


def validate(
    cells: Sequence[Cell],
    step_time: str,
    folder: Path,
    *,
    margins: Margins | None = None,
    draws: int = 0,
    command: Sequence[str] = (),
    progress: Callable[[], None] = lambda: None,
) -> Validation:
    """Simulate every cell with its own times, with `step_time`, and with more or less than that.

    Replays and the free simulations write run directories below `folder`, a folder a cell.
    With `draws` simulated figures are means of so many simulations that scatter as the iterations
    of the calibration did. `progress` is called after each cell.

    Raises:
        ConfigError: a setting of a run cannot be had here, the step time is wrong, or it does not
            scatter and there are to be `draws`.
        ResultError: a run's steps lack what is needed.
        PolicyError, OutputError: as `run_policy`.
    """
    assert cells, "a validation is of runs"
    margins = margins or Margins()
    makers = [Simulations(cell, step_time, folder / cell.name, command) for cell in cells]
    found = []
    for cell, simulations in zip(cells, makers, strict=True):
        found.append(validate_cell(cell, simulations, margins, draws))
        progress()
    return Validation(
        cells=tuple(found),
        choices=tuple(_choices(found)),
        curves=tuple(_rate_curves(found)),
        cost=makers[0].cost,
        margins=margins,
    )


def _choices(cells: Sequence[CellValidation]) -> Iterator[Choice]:
    """For every metric of the policies that served the same load, two of them at least."""
    for group in _grouped(cells, lambda a, b: a.cell.same_but_for_policy(b.cell)):
        if len({found.cell.policy for found in group}) < 2:
            continue
        for name in JUDGED:
            rows = {found.cell.name: found.rows[name] for found in group}
            # a regret is a share of what was measured, which of nothing is none
            if all(row.agreement is not None and row.mean for row in rows.values()):
                measured = {cell: row.measured for cell, row in rows.items()}
                simulated = {
                    c: row.simulated for c, row in rows.items() if row.simulated is not None
                }
                yield choose(name, measured, simulated)


def _rate_curves(cells: Sequence[CellValidation]) -> Iterator[RateCurve]:
    """For every policy with several cells of the same requests at other rates."""
    for group in _grouped(cells, _is_other_rate):
        if len(group) > 1 and all(found.curves for found in group):
            yield rate_curve(group[0].cell.policy, [_at_rate(found) for found in group])


def _is_other_rate(a: CellValidation, b: CellValidation) -> bool:
    names = ("rate_scale", "arrivals")
    one, other = (found.cell.settings.model_dump(exclude=set(names)) for found in (a, b))
    same = (one, a.cell.ran_on) == (other, b.cell.ran_on) and len(a.cell.trace) == len(b.cell.trace)
    return same and (a.cell.trace.prompt_tokens == b.cell.trace.prompt_tokens).all()


def _at_rate(found: CellValidation) -> AtRate:
    arrival = found.cell.trace.arrival
    shares = [_share(run.summary) for run in found.cell.runs]
    known = [share for share in shares if share is not None]
    return AtRate(
        rate=float((len(arrival) - 1) / (arrival[-1] - arrival[0])),
        curves=found.curves,
        measured_share=float(np.mean(known)) if len(known) == len(shares) else None,
        simulated_share=_share(found.simulated.summary),
    )


def _share(summary: dict[str, Any]) -> float | None:
    goodput = summary.get("goodput")
    return None if goodput is None else goodput["whole"]["share"]


def _grouped(
    cells: Sequence[CellValidation], belongs: Callable[[CellValidation, CellValidation], bool]
) -> list[list[CellValidation]]:
    groups: list[list[CellValidation]] = []
    for found in cells:
        for group in groups:
            if belongs(group[0], found):
                group.append(found)
                break
        else:
            groups.append([found])
    return groups
