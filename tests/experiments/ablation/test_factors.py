"""From rates to factors: exact where the truth is known, with intervals that hold it."""

import math
from dataclasses import replace

import numpy as np
import pytest

from schedsim.experiments.ablation.agreement import Agreement, agreement_of, error_of
from schedsim.experiments.ablation.cells import (
    CONTINUOUS,
    EXACT,
    MAXIMUM,
    NAIVE,
    PAGED,
    SORTED,
    STATIC,
    Cell,
    all_cells,
    own_kernel,
)
from schedsim.experiments.ablation.factors import (
    CHANGES,
    KERNEL,
    Factor,
    answer,
    factors_of,
    system,
)
from schedsim.experiments.ablation.measuring import Pair
from schedsim.experiments.ablation.questions import QUESTIONS
from schedsim.experiments.ablation.serving import Served
from schedsim.experiments.ablation.shapley import feasible_sets
from schedsim.experiments.intervals import Values

TRUE = dict(zip(CHANGES, (1.3, 2.0, 1.5, 1.1, 0.97), strict=True))


def multiplicative(repeats: int = 1, noise: float = 0.0) -> dict[Cell, list[float]]:
    """Rates in which each change has a factor of its own, whatever else is changed."""
    rng = np.random.default_rng(3)
    rates = {}
    for cell in all_cells():
        made = {
            "batch size": cell.scheduling is not NAIVE,
            "continuous batching": cell.scheduling is CONTINUOUS,
            "exact lengths": cell.memory is not MAXIMUM,
            "paging": cell.memory is PAGED,
            "paged kernel": cell.kernel == "paged",
        }
        rate = 100 * math.prod(TRUE[change] for change, is_made in made.items() if is_made)
        rates[cell] = (rate * np.exp(noise * rng.standard_normal(repeats))).tolist()
    return rates


def test_factors_that_do_not_interact_are_found_exactly_in_any_order() -> None:
    found = factors_of(multiplicative())
    assert found is not None
    assert (found.first, found.last) == (
        Cell(NAIVE, MAXIMUM, "contiguous"),
        Cell(CONTINUOUS, PAGED, "paged"),
    )
    for change in found.changes:
        for value in (change.factor.value, change.least, change.most):
            assert value == pytest.approx(TRUE[change.change])
    assert found.whole.value == pytest.approx(math.prod(TRUE.values()))
    assert (found.whole.low, found.whole.high) == (None, None)
    for pair, factor in found.interactions.items():
        assert factor.value == pytest.approx(1.0), pair
    assert found.groups["scheduling"].value == pytest.approx(1.3 * 2.0)
    assert found.groups["memory"].value == pytest.approx(1.5 * 1.1)
    assert ("exact lengths", "paging") not in found.interactions, "no paging without a length"


def test_from_tuned_batches_the_size_is_no_change() -> None:
    found = factors_of(multiplicative(), tuned=True)
    assert found is not None
    assert [change.change for change in found.changes] == list(CHANGES[1:])
    assert found.first == Cell(STATIC, MAXIMUM, "contiguous")
    assert list(found.groups) == ["memory"], "one change is no group"
    assert found.whole.value == pytest.approx(math.prod(TRUE.values()) / 1.3)


def test_without_the_kernel_each_memory_has_its_own() -> None:
    changes = [change for change in CHANGES if change != KERNEL]
    found = factors_of(multiplicative(), changes=changes)
    assert found is not None
    by_name = {change.change: change.factor.value for change in found.changes}
    assert by_name["paging"] == pytest.approx(1.1 * 0.97)
    assert system(frozenset({"exact lengths"}), changes).kernel == "contiguous"


def test_the_orders_pass_through_no_cell_that_nobody_can_build() -> None:
    after = {"continuous batching": ["batch size"], "paging": ["exact lengths", "paged kernel"]}
    cells = {system(applied) for applied in feasible_sets(CHANGES, after)}
    assert not any(cell.is_counterfactual for cell in cells)
    assert {cell.memory for cell in cells} == {MAXIMUM, EXACT, PAGED}
    counterfactual = own_kernel(CONTINUOUS, PAGED)._replace(kernel="contiguous")
    without = {c: r for c, r in multiplicative().items() if c != counterfactual}
    assert factors_of(without) == factors_of(multiplicative())


def test_a_decomposition_without_one_of_its_cells_is_none_and_so_is_a_ratio() -> None:
    rates = multiplicative()
    del rates[own_kernel(CONTINUOUS, EXACT)]
    found = answer("burst", rates)
    assert found.factors == []
    left = [question.text for question, _ in found.ratios]
    gone = [q.text for q in QUESTIONS if own_kernel(CONTINUOUS, EXACT) in (q.over, q.under)]
    assert gone
    assert sorted(left + gone) == sorted(question.text for question in QUESTIONS)


def test_ratios_are_paired_by_repeat() -> None:
    """What the workload does to both cells of a ratio is no error of it."""
    rates = multiplicative(repeats=4)
    shaken = {c: [r * w for r, w in zip(rs, (1, 3, 2, 9), strict=True)] for c, rs in rates.items()}
    for question, factor in answer("burst", shaken).ratios:
        expected = rates[question.over][0] / rates[question.under][0]
        assert factor.value == pytest.approx(expected)
        assert factor.low == pytest.approx(factor.high)
    lone = answer("burst", {own_kernel(SORTED, EXACT): [1.0], own_kernel(STATIC, EXACT): [2.0]})
    assert [factor.value for _, factor in lone.ratios] == [0.5]


def test_the_interval_is_students_on_the_logarithms_and_mostly_holds_the_truth() -> None:
    logs = np.log([2.0, 3.0, 4.0])
    factor = Factor.of_logs(logs.tolist())
    assert factor.value == pytest.approx((2 * 3 * 4) ** (1 / 3))
    half = 4.302652729911275 * logs.std(ddof=1) / math.sqrt(3)
    assert factor.low == pytest.approx(math.exp(logs.mean() - half))
    assert factor.high == pytest.approx(math.exp(logs.mean() + half))
    rng = np.random.default_rng(8)
    held = 0
    for _ in range(400):
        value, low, high = Factor.of_logs(rng.normal(math.log(2), 0.1, 5).tolist())
        assert low is not None
        assert high is not None
        assert low < value < high
        held += low < 2 < high
    assert 362 <= held <= 396  # 380 ± 4 standard errors


def served(rate: float) -> Served:
    return Served(rate, rate, 1.0, 1, 0, 1.0, 0, 0, 0, None, ())


def pair(cell: Cell, measured: list[float], error: float) -> Pair:
    simulated = [rate * (1 + error) for rate in measured]
    return Pair(cell, tuple(map(served, measured)), tuple(map(served, simulated)))


def test_an_error_is_that_of_each_repeat_and_the_order_counts_only_what_is_apart() -> None:
    slow = pair(own_kernel(STATIC, EXACT), [100, 200, 150], 0.02)
    fast = pair(own_kernel(CONTINUOUS, EXACT), [110, 221, 164], -0.01)
    same = pair(own_kernel(CONTINUOUS, PAGED), [101, 198, 151], -0.09)
    assert error_of(slow).value == pytest.approx(1.02)
    assert error_of(slow).low == pytest.approx(1.02)
    assert agreement_of([slow, fast, same]) == Agreement(apart=2, same_order=2)
    wrong = replace(fast, simulated=tuple(map(served, [99, 199, 149])))
    assert agreement_of([slow, wrong, same]) == Agreement(apart=2, same_order=1)
    once = [Pair(p.cell, p.measured[:1], p.simulated[:1]) for p in (slow, fast)]
    assert agreement_of(once) == Agreement(apart=0, same_order=0)


def test_values_of_one_repeat_have_no_interval() -> None:
    assert Factor.of_logs([0.0]) == (1.0, None, None)
    assert Values.of_mean(np.array([0.0, 0.0])).estimate.error == 0.0
