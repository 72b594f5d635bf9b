"""What `schedsim ablate` prints: cells, what memory holds, factors and answers."""

import math
from collections.abc import Sequence

import typer
from rich.table import Table

from schedsim.cli.console import stdout_console
from schedsim.experiments.ablation.burst import Cells, Filled
from schedsim.experiments.ablation.capacity import Capacity
from schedsim.experiments.ablation.cells import (
    CONTINUOUS,
    MEMORIES,
    SCHEDULINGS,
    STATIC,
    Cell,
    own_kernel,
)
from schedsim.experiments.ablation.factors import LEVEL, Answers, Factor, Factors
from schedsim.experiments.ablation.running import Ablated
from schedsim.experiments.in_line import InLine

MARK = " *"


def print_ablation(ablated: Ablated) -> None:
    """All tables, and a line on how to read each."""
    console, repeats = stdout_console(), ablated.setup.repeats
    console.print(cells_table(ablated.cells))
    typer.echo(
        f"geometric means over {repeats} draws of the workload{_intervals(repeats)}; batch: size of "
        "the static batch, contiguous / paged kernel;\n"
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
                _rate(pair[0]) + (MARK if is_odd else ""),
                _rate(pair[1]),
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
        told = "below the least rate tried"
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
    for change in factors.changes:
        span = f"{change.least:.3f} to {change.most:.3f}"
        table.add_row(change.change, in_words(change.factor), span)
    table.add_section()
    table.add_row("all of it", in_words(factors.whole), "")
    table.add_section()
    for pair, factor in factors.interactions.items():
        table.add_row(f"together: {' and '.join(pair)}", in_words(factor), "")
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


def _rate(filled: Filled) -> str:
    rates = [run.output_tokens_per_s for run in filled.runs]
    return in_words(Factor.of_logs(list(map(math.log, rates))), digits=0)


def _at_once(uses: Sequence[InLine]) -> str:
    return f"{_mean([use.requests for use in uses]):.1f}" if uses else "-"


def _percent(shares: Sequence[float]) -> str:
    return f"{100 * _mean(shares):.1f} %" if shares else "-"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
