"""docs/paging-or-scheduling.md says what was measured, and what the ablation prints."""

import re
from pathlib import Path

import pytest

from schedsim.experiments.ablation.factors import GROUPS, MEANINGS
from schedsim.experiments.ablation.measuring import DEVICE_CELLS
from tests.benchmarks.ablation import REGIMES, SCARCE, regime_row
from tests.experiments.ablation.test_kernels import rows

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "paging-or-scheduling.md").read_text(
    encoding="utf-8"
)


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


def test_nothing_is_told_as_measured_that_was_not() -> None:
    answers = PAGE[PAGE.index("## Answers") : PAGE.index("In words:")]
    cells = [line.split("|")[4].strip() for line in answers.splitlines() if line.startswith("| ")]
    told = [cell for cell in cells if re.search(r"\d", cell)]
    assert len(told) == 3, "two kernels and an iteration"
    assert set(cells) - set(told) == {"measured", "not yet measured", "cannot be built"}


@pytest.mark.slow
@pytest.mark.parametrize("blocks", [None, SCARCE])
@pytest.mark.parametrize("regime", REGIMES, ids=lambda regime: regime.label)
def test_the_regimes_are_those_of_the_page(regime, blocks) -> None:  # type: ignore[no-untyped-def]
    assert regime_row(regime, blocks) in PAGE
