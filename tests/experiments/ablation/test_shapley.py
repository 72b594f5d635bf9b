"""The algebra of the decomposition: it adds up, is fair, and is Shapley's where all orders are."""

import math
from collections.abc import Mapping
from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.experiments.ablation.shapley import (
    Applied,
    Decomposition,
    decompose,
    feasible_orders,
    feasible_sets,
)

CHANGES = ("a", "b", "c", "d")
AFTER = ({}, {"b": ["a"]}, {"b": ["a"], "d": ["c"]}, {"d": ["a", "b"]}, {"b": "a", "c": "b"})
numbers = st.floats(-5, 5)
games = st.fixed_dictionaries(
    {frozenset(c): numbers for size in range(5) for c in combinations(CHANGES, size)}
)
orderings = st.sampled_from(AFTER)


def means(found: Decomposition) -> dict[str, float]:
    return {change: contribution.mean for change, contribution in found.contributions.items()}


@given(game=games, after=orderings)
def test_contributions_add_up_to_the_ends(
    game: dict[Applied, float], after: Mapping[str, list[str]]
) -> None:
    found = decompose(game.__getitem__, CHANGES, after)
    assert found.total == game[frozenset(CHANGES)] - game[frozenset()]
    assert sum(means(found).values()) == pytest.approx(found.total, abs=1e-12)
    for contribution in found.contributions.values():
        assert contribution.least - 1e-12 <= contribution.mean <= contribution.most + 1e-12


@given(rates=st.lists(st.floats(0.1, 1e4), min_size=16, max_size=16), after=orderings)
def test_factors_multiply_to_the_ratio_of_the_ends(
    rates: list[float], after: Mapping[str, list[str]]
) -> None:
    sets = feasible_sets(CHANGES, {})
    rate = dict(zip(sets, rates, strict=True))
    found = decompose(lambda applied: math.log(rate[applied]), CHANGES, after)
    product = math.prod(math.exp(log) for log in means(found).values())
    assert product == pytest.approx(rate[frozenset(CHANGES)] / rate[frozenset()], rel=1e-9)


@given(game=games, after=orderings, dummy=st.sampled_from(CHANGES))
def test_what_changes_nothing_gets_nothing(
    game: dict[Applied, float], after: Mapping[str, list[str]], dummy: str
) -> None:
    found = decompose(lambda applied: game[applied - {dummy}], CHANGES, after)
    assert found.contributions[dummy].most == found.contributions[dummy].least == 0.0
    assert all(extra == pytest.approx(0, abs=1e-12) for pair, extra in found.interactions.items()
               if dummy in pair)  # fmt: skip


@given(game=games)
def test_changes_that_do_the_same_get_the_same(game: dict[Applied, float]) -> None:
    def value(applied: Applied) -> float:
        """Blind to which of a and b it is; nothing comes before or after just one of them."""
        blind = (applied - {"a", "b"}) | ({"a"} if len(applied & {"a", "b"}) == 1 else set())
        return game[blind | ({"a", "b"} if {"a", "b"} <= applied else set())]

    for after in ({}, {"d": ["a", "b"]}, {"d": ["c"]}):
        found = means(decompose(value, CHANGES, after))
        assert found["a"] == pytest.approx(found["b"], abs=1e-12)


@given(game=games, other=games, after=orderings)
def test_the_decomposition_of_a_sum_is_the_sum(
    game: dict[Applied, float], other: dict[Applied, float], after: Mapping[str, list[str]]
) -> None:
    one, two = (means(decompose(g.__getitem__, CHANGES, after)) for g in (game, other))
    both = means(decompose(lambda applied: game[applied] + other[applied], CHANGES, after))
    assert both == {change: pytest.approx(one[change] + two[change], abs=1e-9) for change in one}


@given(game=games)
def test_without_constraints_it_is_the_closed_form(game: dict[Applied, float]) -> None:
    """Shapley's weights of sets, |S|! (n - |S| - 1)! / n!, written out."""
    found = means(decompose(game.__getitem__, CHANGES))
    for change in CHANGES:
        rest = [c for c in CHANGES if c != change]
        expected = 0.0
        for size in range(4):
            weight = math.factorial(size) * math.factorial(3 - size) / math.factorial(4)
            for chosen in map(frozenset, combinations(rest, size)):
                expected += weight * (game[chosen | {change}] - game[chosen])
        assert found[change] == pytest.approx(expected, abs=1e-12)


def test_two_changes_by_hand() -> None:
    rate = {"": 1.0, "a": 2.0, "b": 3.0, "ab": 12.0}
    found = decompose(lambda applied: math.log(rate["".join(sorted(applied))]), ("a", "b"))
    assert math.exp(found.contributions["a"].mean) == pytest.approx(math.sqrt(2 * 4))
    assert math.exp(found.contributions["a"].least) == pytest.approx(2)
    assert math.exp(found.contributions["a"].most) == pytest.approx(4)
    assert math.exp(found.interactions["a", "b"]) == pytest.approx(12 / (2 * 3))
    bound = decompose(
        lambda applied: math.log(rate["".join(sorted(applied))]), ("a", "b"), {"b": ["a"]}
    )
    assert math.exp(bound.contributions["a"].mean) == pytest.approx(2)
    assert math.exp(bound.contributions["b"].mean) == pytest.approx(6)
    assert bound.interactions == {}


@given(after=orderings)
def test_orders_pass_through_the_feasible_sets_and_no_others(
    after: Mapping[str, list[str]],
) -> None:
    passed = {
        frozenset(order[:end])
        for order in feasible_orders(CHANGES, after)
        for end in range(len(CHANGES) + 1)
    }
    assert passed == set(feasible_sets(CHANGES, after))
