"""What `schedsim ablate` prints: cells, what memory holds, factors and answers."""

import math
from collections.abc import Sequence

import typer
from rich.table import Table

from schedsim.cli.console import stdout_console
from schedsim.experiments.ablation.agreement import agreement_of, error_of
from schedsim.experiments.ablation.burst import Cells
from schedsim.experiments.ablation.capacity import Capacity
from schedsim.experiments.ablation.cells import (
    CONTINUOUS,
    MEMORIES,
    SCHEDULINGS,
    STATIC,
    Cell,
    own_kernel,
)
from schedsim.experiments.ablation.factors import GROUPS, LEVEL, MEANINGS, Answers, Factor, Factors
from schedsim.experiments.ablation.measuring import Pair
from schedsim.experiments.ablation.on_device import MeasuredCells
from schedsim.experiments.ablation.running import Ablated
from schedsim.experiments.ablation.serving import Served, served_rates
from schedsim.experiments.in_line import InLine

MARK = " *"


def print_ablation(ablated: Ablated) -> None:
    """All tables, and a line on how to read each."""
    console, repeats = stdout_console(), ablated.setup.repeats
    console.print(cells_table(ablated.cells))
    typer.echo(
        f"geometric means over {repeats} draws of the workload{_intervals(repeats)}; batch: size "
        "of the static batch, contiguous / paged kernel;\n"
        f"{MARK.strip()} counterfactual: a contiguous kernel cannot read paged memory, so this is "
        "simulated only\n"
    )
    console.print(memory_table(ablated.cells))
    typer.echo("shares of all token slots while requests wait\n")
    for answers in ablated.answers:
        if answers.measure == "capacity":
            console.print(capacity_table(ablated.capacities))
            typer.echo("requests/s at which nine of ten requests meet the targets\n")
        for factors in answers.factors:
            console.print(factors_table(factors, answers.measure))
            typer.echo("")
        console.print(ratios_table(answers))
        typer.echo("")


def cells_table(cells: Cells) -> Table:
    """Output tokens a second of every cell, a row for both kernels."""
    table = _table("output tokens/s, one burst", ("memory",))
    for heading in ("batch", "contiguous kernel", "paged kernel", "requests at once"):
        table.add_column(heading, justify="right")
    for scheduling in SCHEDULINGS:
        for memory in MEMORIES:
            pair = [cells[Cell(scheduling, memory, kernel)] for kernel in ("contiguous", "paged")]
            sizes = [filled.candidate.batch_size for filled in pair]
            batch = "-" if None in sizes else " / ".join(map(str, dict.fromkeys(sizes)))
            is_odd = Cell(scheduling, memory, "contiguous").is_counterfactual
            own = cells[own_kernel(scheduling, memory)]
            table.add_row(
                scheduling.name,
                memory.name,
                batch,
                _rate(pair[0].runs) + (MARK if is_odd else ""),
                _rate(pair[1].runs),
                f"{_mean([run.at_once for run in own.runs]):.1f}",
            )
        table.add_section()
    return table


def memory_table(cells: Cells) -> Table:
    """What the slots are used for under tuned static and continuous batching."""
    table = _table("memory use", ("memory", "manager"))
    for heading in (
        "at once", "tokens", "ended", "reserved", "internal", "external", "free", "preempted",
        "moved tokens",
    ):  # fmt: skip
        table.add_column(heading, justify="right")
    for scheduling in (STATIC, CONTINUOUS):
        for memory in MEMORIES:
            filled = cells[own_kernel(scheduling, memory)]
            uses = [run.use for run in filled.runs if run.use is not None]
            shares = [
                _percent([getattr(use, name) for use in uses])
                for name in ("tokens", "ended", "reserved", "internal", "external", "free")
            ]
            table.add_row(
                scheduling.name,
                memory.name,
                filled.candidate.manager,
                _at_once(uses),
                *shares,
                f"{_mean([run.preemptions for run in filled.runs]):,.0f}",
                f"{_mean([run.moved_tokens for run in filled.runs]):,.0f}",
            )
        table.add_section()
    return table


def capacity_table(capacities: dict[Cell, Capacity]) -> Table:
    """The highest rates that were borne."""
    table = _table("capacity", ("memory", "kernel"))
    for heading in ("batch at most", "requests/s"):
        table.add_column(heading, justify="right")
    for cell, (candidate, rates) in capacities.items():
        borne = [rate for rate in rates if rate is not None]
        told = f"below the least rate tried in {len(rates) - len(borne)} of {len(rates)} repeats"
        if len(borne) == len(rates):
            told = in_words(Factor.of_logs(list(map(math.log, borne))), digits=2)
        size = "-" if candidate.batch_size is None else str(candidate.batch_size)
        table.add_row(cell.scheduling.name, cell.memory.name, cell.kernel, size, told)
    return table


def factors_table(factors: Factors, measure: str) -> Table:
    """What each change multiplies the rate by, and what pairs do beyond that."""
    first, last = factors.first, factors.last
    table = _table(f"{measure}: {first.scheduling.name} / {first.memory.name} → {last}", ())
    for heading in ("factor", "in any order"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for change in factors.changes:
        span = f"{change.least:.3f} to {change.most:.3f}"
        table.add_row(change.change, in_words(change.factor), span, MEANINGS[change.change])
    table.add_section()
    for name, factor in factors.groups.items():
        table.add_row(f"{name} in all", in_words(factor), "", " × ".join(GROUPS[name]))
    table.add_row("all of it", in_words(factors.whole))
    table.add_section()
    for pair, factor in factors.interactions.items():
        meaning = "together, beyond each alone"
        table.add_row(" and ".join(pair), in_words(factor), "", meaning)
    return table


def print_measured(found: MeasuredCells) -> None:
    """The cells that a device ran beside their simulation, and what both answer."""
    console, repeats = stdout_console(), found.setup.repeats
    console.print(measured_table(found.pairs))
    source = "the step times given" if found.calibrated else "a fit to the other cells' runs"
    typer.echo(
        f"{found.device}; output tokens/s of one burst, geometric means over {repeats} draws of "
        f"the workload{_intervals(repeats)}; simulated with {source}"
    )
    agreement = agreement_of(found.pairs)
    typer.echo(
        f"order: {agreement.apart} pairs of cells measured apart by more than the spread of the "
        f"repeats, {agreement.same_order} of them simulated in the same order\n"
    )
    table = _table("one over the other", ())
    for heading in ("measured", "simulated"):
        table.add_column(heading, justify="right")
    for (question, measured), (_, simulated) in zip(
        found.measured.ratios, found.simulated.ratios, strict=True
    ):
        table.add_row(question.text, in_words(measured), in_words(simulated))
    console.print(table)


def measured_table(pairs: Sequence[Pair]) -> Table:
    """A row a cell: what was measured, what was simulated, and how far apart that is."""
    table = _table("cell", ("memory", "kernel"))
    for heading in ("measured", "simulated", "error"):
        table.add_column(heading, justify="right")
    for pair in pairs:
        error = error_of(pair)
        bounds = [100 * (bound - 1) for bound in error if bound is not None]
        told = f"{bounds[0]:+.2f} %"
        if len(bounds) > 1:
            told += f" [{bounds[1]:+.2f}, {bounds[2]:+.2f}]"
        table.add_row(
            pair.cell.scheduling.name,
            pair.cell.memory.name,
            pair.cell.kernel,
            _rate(pair.measured),
            _rate(pair.simulated),
            told,
        )
    return table


def ratios_table(answers: Answers) -> Table:
    """One cell over another."""
    table = _table(f"{answers.measure}: one over the other", ())
    table.add_column("factor", justify="right")
    for question, factor in answers.ratios:
        table.add_row(question.text, in_words(factor))
    return table


def in_words(factor: Factor, digits: int = 3) -> str:
    """A factor with its interval."""
    value, low, high = factor
    told = f"{value:,.{digits}f}"
    return told if low is None else f"{told} [{low:,.{digits}f}, {high:,.{digits}f}]"


def _table(first: str, others: Sequence[str]) -> Table:
    table = Table(show_edge=False, pad_edge=False)
    for heading in (first, *others):
        table.add_column(heading)
    return table


def _intervals(repeats: int) -> str:
    return "" if repeats < 2 else f", {1 - LEVEL:.0%} intervals"


def _rate(runs: Sequence[Served]) -> str:
    rates = served_rates(runs)
    if not all(rates):
        return "nothing served"
    return in_words(Factor.of_logs(list(map(math.log, rates))), digits=0)


def _at_once(uses: Sequence[InLine]) -> str:
    return f"{_mean([use.requests for use in uses]):.1f}" if uses else "-"


def _percent(shares: Sequence[float]) -> str:
    return f"{round(100 * _mean(shares), 1) + 0.0:.1f} %" if shares else "-"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
