"""`FormulaBlocks`: what it would cost to take the KV block count from the memory formula."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from schedsim.experiments.validation.budget import Stages
from schedsim.experiments.validation.metrics import METRICS, figure
from schedsim.experiments.validation.simulations import Simulations


@dataclass(frozen=True, slots=True)
class FormulaBlocks:
    """What the memory formula's own KV block count would add to the errors, by metric."""

    engine: int
    formula: int
    adds: dict[str, float | None]


def formula_blocks(simulations: Simulations, stages: Sequence[Stages]) -> FormulaBlocks | None:
    """Simulate with the formula's count; None where the device did not choose its own."""
    told = simulations.with_formula_blocks()
    if told is None:
        return None
    formula, summary = told
    adds: dict[str, float | None] = {}
    for name in METRICS:
        with_engine, with_formula = (figure(s, name) for s in (stages[0].simulated, summary))
        measured = [figure(stage.measured, name) for stage in stages]
        known = [value for value in measured if value is not None]
        mean = float(np.mean(known)) if len(known) == len(measured) else 0.0
        adds[name] = None
        if mean and with_engine is not None and with_formula is not None:
            adds[name] = (with_formula - with_engine) / mean
    return FormulaBlocks(simulations.engine_blocks, formula, adds)
