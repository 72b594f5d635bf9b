"""The tables of docs/paging-or-scheduling.md.

python tests/benchmarks/ablation.py [plenty] [scarce] [capacity] [library] [regimes]
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from schedsim.cli.ablate_tables import in_words
from schedsim.config import make_settings
from schedsim.experiments.ablation.burst import Cells, fill_cell
from schedsim.experiments.ablation.capacity import CAPACITY_CELLS, Capacities
from schedsim.experiments.ablation.cells import Cell
from schedsim.experiments.ablation.factors import Answers, Factor, answer
from schedsim.experiments.ablation.kernels import LIBRARY
from schedsim.experiments.ablation.questions import QUESTIONS, Question
from schedsim.experiments.ablation.running import Ablated, ablate, answers_of, prepare
from schedsim.experiments.ablation.setup import Setup
from schedsim.traces import write_trace
from schedsim.traces.generators import Workload, parse_law
from schedsim.traces.generators.arrivals import Poisson

SEATS = 1024
SCARCE = 4000

PLENTY = Setup(make_settings(max_seqs=SEATS))
"""What `schedsim ablate` does without options."""


@dataclass(frozen=True)
class Regime:
    """A workload, by recipe or by laws of lengths in a file that is made first."""

    label: str
    recipe: str = ""
    prompt: str = ""
    output: str = ""


REGIMES = (
    Regime("azure-code: 28 tokens out", "generate:azure-code,requests=500"),
    Regime("azure-conv: 211 out", "generate:azure-conv,requests=500"),
    Regime("sharegpt: 326 out", "generate:sharegpt,requests=500"),
    Regime("reasoning: 1,400 out, heavy tail", "generate:reasoning,requests=500"),
    Regime("512 in, 256 out, all equal", prompt="fixed:512", output="fixed:256"),
    Regime("512 in, exponential 256 out", prompt="fixed:512", output="exponential:mean=256"),
)

ASKED = (
    "continuous batching alone, over tuned static",
    "exact lengths without paging",
    "paging over exact lengths",
    "paging on top of continuous batching",
    "noisy over exact lengths",
    "static by exact length over continuous, both paged",
    "paged over contiguous kernel, paged (counterfactual)",
)


def factor_rows(answers: Answers) -> list[str]:
    """A row for each change, from naive and from tuned static batching."""
    naive, tuned = answers.factors
    of_tuned = {change.change: change for change in tuned.changes}
    rows = []
    for change in naive.changes:
        span = f"{change.least:.3f} to {change.most:.3f}"
        other = of_tuned.get(change.change)
        told = "-" if other is None else in_words(other.factor)
        rows.append(f"| {change.change} | {in_words(change.factor)} | {span} | {told} |")
    for name, factor in naive.groups.items():
        told = in_words(tuned.groups[name]) if name in tuned.groups else "-"
        rows.append(f"| {name} in all | {in_words(factor)} | | {told} |")
    return [*rows, f"| all of it | {in_words(naive.whole)} | | {in_words(tuned.whole)} |"]


def ratio_rows(answers: Answers) -> list[str]:
    """A row for each question."""
    return [f"| {question.text} | {in_words(factor)} |" for question, factor in answers.ratios]


def regime_row(regime: Regime, blocks: int | None) -> str:
    """The answers that say when the others change."""
    with TemporaryDirectory() as folder:
        trace = regime.recipe
        if not trace:
            trace = str(Path(folder) / "trace.parquet")
            workload = Workload(
                Poisson(1.0), parse_law(regime.prompt, "prompt"), parse_law(regime.output, "output")
            )
            write_trace(workload.generate(2000, 0), Path(trace))
        setup = Setup(
            make_settings(max_seqs=SEATS, blocks=blocks), trace=trace, requests=500, repeats=3
        )
        questions = [question for question in QUESTIONS if question.text in ASKED]
        answers = asked(setup, questions)
    told = {question.text: in_words(factor, digits=2) for question, factor in answers.ratios}
    pool = "whole GPU" if blocks is None else f"{blocks:,} blocks"
    return f"| {regime.label} | {pool} | {' | '.join(told[text] for text in ASKED)} |"


def asked(setup: Setup, questions: Sequence[Question]) -> Answers:
    """What needs the cells of some questions only."""
    prepared = prepare(setup)
    needed: dict[Cell, None] = dict.fromkeys(c for q in questions for c in (q.under, q.over))
    cells: Cells = {}
    for cell in needed:
        cells[cell] = fill_cell(prepared.setup, prepared.pool, prepared.draws, cell, cells)
    rates = {c: [run.output_tokens_per_s for run in filled.runs] for c, filled in cells.items()}
    return answer("burst", rates)


def capacity_rows(setup: Setup) -> list[str]:
    """What each cell bears, then what follows."""
    prepared = prepare(setup)
    cells: Cells = {}
    for cell in CAPACITY_CELLS:
        cells[cell] = fill_cell(prepared.setup, prepared.pool, prepared.draws, cell, cells)
    searched = Capacities(prepared.setup, prepared.pool, prepared.draws, cells)
    capacities = {cell: searched.of(cell) for cell in CAPACITY_CELLS}
    rows = []
    for cell, capacity in capacities.items():
        rates = [rate for rate in capacity.rates if rate is not None]
        told = in_words(Factor.of_logs([math.log(rate) for rate in rates]), digits=2)
        missing = f", {len(capacity.rates) - len(rates)} too low to be found"
        told += missing if len(rates) < len(capacity.rates) else ""
        rows.append(f"| {cell.scheduling.name} | {cell.memory.name} | {told} |")
    answers = answers_of(cells, capacities)[1]
    return [*rows, "", *factor_rows(answers), "", *ratio_rows(answers), ""]


def with_blocks(blocks: int | None, **targets: float) -> Setup:
    """The default workload in another pool, or with targets."""
    engine = PLENTY.engine.model_copy(update={"blocks": blocks, **targets})
    return replace(PLENTY, engine=engine)


def tables_of(ablated: Ablated) -> list[str]:
    """The tables of the burst, then those of the capacities."""
    lines = []
    for answers in ablated.answers:
        lines += [f"{answers.measure}:", *factor_rows(answers), "", *ratio_rows(answers), ""]
    return lines


def main() -> None:
    """Print the tables asked for, or all."""
    chosen = sys.argv[1:] or ["plenty", "scarce", "capacity", "library", "regimes"]
    if "plenty" in chosen:
        print("\n".join(["## whole GPU", *tables_of(ablate(prepare(PLENTY)))]), flush=True)
    if "scarce" in chosen:
        scarce = ablate(prepare(with_blocks(SCARCE)))
        print("\n".join(["## scarce", *tables_of(scarce)]), flush=True)
    if "library" in chosen:
        kernels = [q for q in QUESTIONS if q.text.startswith("paged over contiguous")]
        library = replace(PLENTY, contiguous_kernel=LIBRARY)
        print("\n".join(["## library", *ratio_rows(asked(library, kernels))]), flush=True)
    if "regimes" in chosen:
        print("## regimes")
        for regime in REGIMES:
            for blocks in (None, SCARCE):
                print(regime_row(regime, blocks), flush=True)
    if "capacity" in chosen:
        for ttft in (2.0, 10.0):
            print(f"## capacity, {ttft:g} s")
            targets = with_blocks(None, slo_ttft=ttft, slo_tpot=0.1)
            print("\n".join(capacity_rows(replace(targets, repeats=3))), flush=True)


if __name__ == "__main__":
    main()
