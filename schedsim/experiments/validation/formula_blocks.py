"""`FormulaBlocks`: what it would cost to take the KV block count from the memory formula."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from schedsim.experiments.validation.metrics import METRICS, figure
from schedsim.experiments.validation.simulations import Simulations

Summary = dict[str, Any]


@dataclass(frozen=True, slots=True)
class FormulaBlocks:
    """What the memory formula's own KV block count would add to the errors, by metric."""

    engine: int
    formula: int
    adds: dict[str, float | None]


def formula_blocks(
    simulations: Simulations, measured: Sequence[Summary], simulated: Summary
) -> FormulaBlocks | None:
    """Simulate with the formula's count what is `simulated` with the engine's; None where the
    device did not choose its own."""
    told = simulations.with_formula_blocks()
    if told is None:
        return None
    formula, with_more = told
    adds: dict[str, float | None] = {}
    for name in METRICS:
        with_engine, with_formula = figure(simulated, name), figure(with_more, name)
        there = [figure(summary, name) for summary in measured]
        known = [value for value in there if value is not None]
        mean = float(np.mean(known)) if len(known) == len(there) else 0.0
        adds[name] = None
        if mean and with_engine is not None and with_formula is not None:
            adds[name] = (with_formula - with_engine) / mean
    return FormulaBlocks(simulations.engine_blocks, formula, adds)
