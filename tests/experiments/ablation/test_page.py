"""docs/paging-or-scheduling.md says what was measured, and what the ablation prints."""

import json
from pathlib import Path
from statistics import geometric_mean

import pytest

from schedsim.cli.ablate_tables import in_words, memory_table
from schedsim.experiments.ablation.cells import EXACT, MAXIMUM, NAIVE, PAGED, STATIC, own_kernel
from schedsim.experiments.ablation.factors import GROUPS, MEANINGS, Factor, Factors
from schedsim.experiments.ablation.measuring import DEVICE_CELLS
from schedsim.experiments.ablation.running import Ablated, ablate, prepare
from tests.benchmarks.ablation import REGIMES, SCARCE, regime_row, with_blocks
from tests.experiments.ablation.test_kernels import rows

ROOT = Path(__file__).resolve().parents[3]
PAGE = (ROOT / "docs" / "paging-or-scheduling.md").read_text(encoding="utf-8")


def span(percents: list[str]) -> str:
    """As the page tells the least and the most."""
    values = sorted(float(percent.removesuffix(" %")) for percent in percents)
    return f"{values[0]:+.1f} to {values[-1]:+.1f} %"


@pytest.mark.parametrize(
    ("table", "question"), [("decode", "**Does paging slow attention?**"), ("prefill", "Prefill")]
)
def test_what_a_look_up_costs_is_what_was_measured(table: str, question: str) -> None:
    costs = rows(f"What the look-up costs: {table}, the same code")
    measured = span([row[4] for row in costs if row[1] == "16"])
    (line,) = [line for line in PAGE.splitlines() if line.startswith(f"| {question}")]
    assert f"| {measured} |" in line


def test_what_an_iteration_costs_is_what_was_measured() -> None:
    measured = span([row[3] for row in rows("A whole decode")])
    assert f"| **A whole decode iteration?** | | | {measured} |" in PAGE


def test_every_change_group_and_step_time_is_explained() -> None:
    for change, meaning in MEANINGS.items():
        assert f"| {change}: {meaning} |" in PAGE
    for group in GROUPS:
        assert f"| {group} in all |" in PAGE
    words = {13: "thirteen"}
    assert f"executes {words[len(DEVICE_CELLS)]} of the cells" in PAGE


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [None, SCARCE])
@pytest.mark.parametrize("regime", REGIMES, ids=lambda regime: regime.label)
def test_the_regimes_are_those_of_the_page(regime, blocks) -> None:  # type: ignore[no-untyped-def]
    assert regime_row(regime, blocks) in PAGE


ASKED = {
    "Serving: throughput with": "paged over contiguous kernel, paged (counterfactual)",
    "the same, exact lengths": "paged over contiguous kernel, exact lengths",
    "**What does continuous batching alone give,**": "continuous batching alone, over naive static",
    "over tuned static, in the same memory": "continuous batching alone, over tuned static",
    "over tuned static, both with exact": "continuous over tuned static, both with exact lengths",
    "over tuned static, both paged": "continuous over tuned static, both paged",
    "**What does paging add on top?**": "paging on top of continuous batching",
    "**What would exact lengths give": "exact lengths without paging",
    "not known perfectly": "noisy lengths without paging",
    "Paging over exact lengths": "paging over exact lengths",
    "Paging over noisy lengths": "paging over noisy lengths",
    "Grouping in static batches": "static by exact over mixed static, exact lengths",
    "**Does grouping short with short": "static by exact length over continuous, both paged",
    "by exact length, in exact room": "static by exact length over continuous",
    "by noisy length, both paged": "static by noisy length over continuous, both paged",
    "All of it": "all of it, over naive static",
}
"""How the rows of the page's answers begin, and the questions of the ablation."""


def cells_of(section: str, begins: str) -> list[str]:
    """The row of a section that begins so."""
    text = PAGE[PAGE.index(f"## {section}") :].split("\n## ")[0]
    (line,) = [line for line in text.splitlines() if line.startswith(f"| {begins}")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def check_factors(naive: Factors, tuned: Factors, place: int) -> None:
    section = "What each part contributes"
    for change in naive.changes:
        row = cells_of(section, f"{change.change}: ")
        span = f"{change.least:.3f} to {change.most:.3f}"
        assert row[1 + 2 * place : 3 + 2 * place] == [in_words(change.factor), span]
    totals = {f"{name} in all": factor for name, factor in naive.groups.items()}
    for name, factor in {**totals, "all of it": naive.whole}.items():
        assert cells_of(section, f"{name} |")[1 + 2 * place] == in_words(factor)
    for change in tuned.changes:
        assert cells_of(section, f"{change.change} |")[1 + place] == in_words(change.factor)


def check_memory(ablated: Ablated) -> None:
    columns = [list(column.cells) for column in memory_table(ablated.cells).columns]
    for scheduling, memory, _, *shares in zip(*columns, strict=True):
        row = cells_of("What memory holds", f"{scheduling} | {memory} |")
        assert row[2:] == shares[:7]


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [None, SCARCE])
def test_the_answers_are_those_of_the_page(blocks: int | None) -> None:
    ablated = ablate(prepare(with_blocks(blocks)))
    place = 0 if blocks is None else 1
    (burst,) = ablated.answers
    told = {question.text: in_words(factor) for question, factor in burst.ratios}
    for begins, question in ASKED.items():
        assert cells_of("Answers", begins)[1 + place] == told[question], question
    check_factors(*burst.factors, place)
    if blocks is not None:
        check_memory(ablated)
    sizes = [
        ablated.cells[own_kernel(*system)].candidate.batch_size
        for system in ((NAIVE, MAXIMUM), (STATIC, MAXIMUM), (STATIC, EXACT), (STATIC, PAGED))
    ]
    assert sizes == ([54, 54, 216, 216] if blocks is None else [7, 7, 79, 56])


MEASURED = json.loads((ROOT / "validation" / "paging-or-scheduling-h200.json").read_text())

ALSO_MEASURED = {
    **ASKED,
    "the same, room for the longest": "paged over contiguous kernel, reserved to the maximum",
}


def factor_of(answer: dict[str, float]) -> Factor:
    return Factor(answer["value"], answer["low"], answer["high"])


def test_the_measured_answers_are_those_of_the_committed_runs() -> None:
    sides = {
        answers["measure"]: {ratio["question"]: factor_of(ratio) for ratio in answers["ratios"]}
        for answers in MEASURED["answers"]
    }
    found = 0
    for begins, question in ALSO_MEASURED.items():
        told = cells_of("Answers", begins)[3]
        if question in sides["measured"]:
            simulated = sides["simulated"][question].value
            assert told == f"{in_words(sides['measured'][question])} ({simulated:.3f})", question
            found += 1
        else:
            assert told in ("cannot be built", "not among the cells")
    assert found == len(ALSO_MEASURED) - 2


def test_the_measured_cells_are_those_of_the_committed_runs() -> None:
    words = "is simulated within 1.0 %\n  in each, within 0.4 % in eleven, and all 58 pairs"
    assert words in PAGE
    assert MEASURED["order"] == {"apart": 58, "same_order": 58}
    errors = []
    for cell in MEASURED["cells"]:
        error = factor_of(cell["simulated_over_measured"])
        errors.append(abs(error.value - 1))
        scheduling = cell["scheduling"].replace("static, naive", "static, naive and tuned")
        if cell["scheduling"] == "static" and cell["memory"] == "maximum":
            continue  # the same runs as the naive one
        begins = f"{scheduling} | {cell['memory']} | {cell['kernel']} |"
        row = cells_of("On a GPU", begins)
        rates = [f"{geometric_mean(cell[side]):,.0f}" for side in ("measured", "simulated")]
        percents = [f"{100 * (value - 1):+.2f}".replace("-", "−") for value in error]
        assert row[3:] == [*rates, f"{percents[0]} % [{percents[1]}, {percents[2]}]"]
    assert max(errors) < 0.01
    assert sum(error < 0.004 for error in errors) == 11
