"""The Parquet files of an ablation: a row a run, and a row a factor."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from schedsim.experiments.ablation.burst import Cells
from schedsim.experiments.ablation.capacity import Capacity
from schedsim.experiments.ablation.cells import Cell
from schedsim.experiments.ablation.factors import Answers, Factor, Factors
from schedsim.experiments.ablation.measuring import Pair
from schedsim.experiments.ablation.serving import Served
from schedsim.experiments.ablation.setup import Candidate
from schedsim.experiments.in_line import InLine

if TYPE_CHECKING:
    import pyarrow

_FIGURES = [field.name for field in fields(Served) if field.name not in ("use", "notes")]
_SHARES = [field.name for field in fields(InLine)]


def cells_table(
    cells: Cells, capacities: Mapping[Cell, Capacity], seeds: Sequence[int]
) -> "pyarrow.Table":
    """A row for each candidate and repeat of each cell in a burst, and for each capacity.

    `chosen` says that the candidate is the cell's best. Shares are means over the time in which
    requests wait, null where none ever did; `capacity` is null where even the least rate tried is
    too much.
    """
    rows = [*_burst_rows(cells, seeds), *_capacity_rows(capacities, seeds)]
    return _table(rows)


def measured_table(pairs: Sequence[Pair], seeds: Sequence[int]) -> "pyarrow.Table":
    """A row for each cell and repeat on a device, beside its simulation.

    Figures of the simulation have names that begin with `simulated_`.
    """
    rows = []
    for pair in pairs:
        for seed, measured, simulated in zip(seeds, pair.measured, pair.simulated, strict=True):
            rows.append(
                {
                    "scheduling": pair.cell.scheduling.name,
                    "memory": pair.cell.memory.name,
                    "kernel": pair.cell.kernel,
                    "seed": seed,
                    **{name: getattr(measured, name) for name in _FIGURES},
                    **{f"simulated_{name}": getattr(simulated, name) for name in _FIGURES},
                }
            )
    return _table(rows)


def _burst_rows(cells: Cells, seeds: Sequence[int]) -> Iterator[dict[str, Any]]:
    for cell, filled in cells.items():
        for candidate, runs in filled.tried.items():
            for seed, run in zip(seeds, runs, strict=True):
                use = dict.fromkeys(_SHARES) if run.use is None else asdict(run.use)
                yield {
                    **_labels("burst", cell, candidate, seed),
                    "chosen": candidate == filled.candidate,
                    **{name: getattr(run, name) for name in _FIGURES},
                    **{f"in_line_{name}": value for name, value in use.items()},
                    "capacity": None,
                }


def _capacity_rows(
    capacities: Mapping[Cell, Capacity], seeds: Sequence[int]
) -> Iterator[dict[str, Any]]:
    for cell, (candidate, rates) in capacities.items():
        for seed, rate in zip(seeds, rates, strict=True):
            yield {
                **_labels("capacity", cell, candidate, seed),
                "chosen": True,
                **dict.fromkeys(_FIGURES),
                **{f"in_line_{name}": None for name in _SHARES},
                "capacity": rate,
            }


def _labels(measure: str, cell: Cell, candidate: Candidate, seed: int) -> dict[str, Any]:
    return {
        "measure": measure,
        "scheduling": cell.scheduling.name,
        "memory": cell.memory.name,
        "kernel": cell.kernel,
        "counterfactual": cell.is_counterfactual,
        "manager": candidate.manager,
        "batch_size": candidate.batch_size,
        "seed": seed,
    }


def factors_table(answers: Sequence[Answers]) -> "pyarrow.Table":
    """A row for each change, group of changes, interaction, whole and ratio; intervals are null for
    one repeat.

    `least` and `most` are those of a change in any order.
    """
    rows: list[dict[str, Any]] = []
    for found in answers:
        for factors in found.factors:
            rows += _rows_of(found.measure, factors)
        for question, factor in found.ratios:
            rows.append(
                _row(found.measure, "ratio", question.text, factor)
                | {"first": str(question.under), "last": str(question.over)}
            )
    return _table(rows)


def _rows_of(measure: str, factors: Factors) -> Iterator[dict[str, Any]]:
    ends = {"first": str(factors.first), "last": str(factors.last)}
    for change in factors.changes:
        extremes = {"least": change.least, "most": change.most}
        yield _row(measure, "change", change.change, change.factor) | ends | extremes
    for name, factor in factors.groups.items():
        yield _row(measure, "group", name, factor) | ends
    for pair, factor in factors.interactions.items():
        yield _row(measure, "interaction", " × ".join(pair), factor) | ends
    yield _row(measure, "whole", "whole", factors.whole) | ends


def _row(measure: str, kind: str, name: str, factor: Factor) -> dict[str, Any]:
    return {
        "measure": measure,
        "kind": kind,
        "name": name,
        "first": None,
        "last": None,
        "factor": factor.value,
        "low": factor.low,
        "high": factor.high,
        "least": None,
        "most": None,
    }


def _table(rows: Sequence[dict[str, Any]]) -> "pyarrow.Table":
    import pyarrow

    names = list(rows[0]) if rows else []
    return pyarrow.table({name: [row[name] for row in rows] for name in names})
