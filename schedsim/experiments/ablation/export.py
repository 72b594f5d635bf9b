"""An ablation for machines and for readers: JSON, and the waterfall of its factors."""

import math
from collections.abc import Mapping
from typing import Any

from schedsim.experiments.ablation.agreement import agreement_of, error_of
from schedsim.experiments.ablation.burst import Cells, Filled
from schedsim.experiments.ablation.capacity import Capacity
from schedsim.experiments.ablation.cells import Cell
from schedsim.experiments.ablation.factors import Answers, Factors
from schedsim.experiments.ablation.on_device import MeasuredCells
from schedsim.experiments.ablation.running import Ablated
from schedsim.experiments.ablation.serving import mean_log_rate, served_rates
from schedsim.report.figures import Figure
from schedsim.report.waterfall import steps_of, waterfall


def as_json(ablated: Ablated) -> dict[str, Any]:
    """Everything that the tables show, and the rates of every repeat."""
    setup = ablated.setup
    return {
        "trace": setup.trace,
        "seeds": list(setup.seeds),
        "pool": ablated.pool._asdict(),
        "naive_batch": ablated.pool.naive_batch,
        "cells": [_cell(cell, filled) for cell, filled in ablated.cells.items()],
        "capacities": _capacities(ablated.capacities),
        "answers": [_answers(answers) for answers in ablated.answers],
        "notes": ablated.notes,
    }


def measured_json(found: MeasuredCells) -> dict[str, Any]:
    """The same of what a device ran."""
    agreement = agreement_of(found.pairs)
    return {
        "trace": found.setup.trace,
        "seeds": list(found.setup.seeds),
        "pool": found.pool._asdict(),
        "device": found.device,
        "calibrated": found.calibrated,
        "cells": [
            {
                **_labels(pair.cell),
                "measured": served_rates(pair.measured),
                "simulated": served_rates(pair.simulated),
                "simulated_over_measured": error_of(pair)._asdict(),
            }
            for pair in found.pairs
        ],
        "order": {"apart": agreement.apart, "same_order": agreement.same_order},
        "answers": [_answers(found.measured), _answers(found.simulated)],
        "notes": found.notes,
    }


def waterfall_of(cells: Cells, factors: Factors) -> Figure:
    """From the first system of a burst's decomposition to the last."""
    steps = steps_of(
        _short(factors.first),
        _short(factors.last),
        math.exp(mean_log_rate(cells[factors.first].runs)),
        [(change.change, change.factor.value) for change in factors.changes],
    )
    return waterfall("waterfall", "What each change brings", "output tokens/s (logarithmic)", steps)


def _short(cell: Cell) -> str:
    return f"{cell.scheduling.name}, {cell.memory.name}"


def _labels(cell: Cell) -> dict[str, Any]:
    return {
        "scheduling": cell.scheduling.name,
        "memory": cell.memory.name,
        "kernel": cell.kernel,
        "counterfactual": cell.is_counterfactual,
    }


def _cell(cell: Cell, filled: Filled) -> dict[str, Any]:
    return {
        **_labels(cell),
        **filled.candidate._asdict(),
        "output_tokens_per_s": served_rates(filled.runs),
        "tried": [candidate._asdict() for candidate in filled.tried],
    }


def _capacities(capacities: Mapping[Cell, Capacity]) -> list[dict[str, Any]]:
    return [
        {**_labels(cell), **candidate._asdict(), "requests_per_s": rates}
        for cell, (candidate, rates) in capacities.items()
    ]


def _answers(answers: Answers) -> dict[str, Any]:
    return {
        "measure": answers.measure,
        "factors": [_factors(factors) for factors in answers.factors],
        "ratios": [
            {
                "question": question.text,
                "over": _labels(question.over),
                "under": _labels(question.under),
                **factor._asdict(),
            }
            for question, factor in answers.ratios
        ],
    }


def _factors(factors: Factors) -> dict[str, Any]:
    return {
        "first": _labels(factors.first),
        "last": _labels(factors.last),
        "whole": factors.whole._asdict(),
        "changes": [
            {"change": c.change, **c.factor._asdict(), "least": c.least, "most": c.most}
            for c in factors.changes
        ],
        "groups": {name: factor._asdict() for name, factor in factors.groups.items()},
        "interactions": [
            {"changes": list(pair), **factor._asdict()}
            for pair, factor in factors.interactions.items()
        ],
    }
