"""`decompose`: what each of several changes contributes to a factor, whatever the order.

Sources: Shapley, "A Value for n-Person Games", 1953, for the mean over all orders; Faigle and Kern,
"The Shapley value for cooperative games under precedence constraints", 1992, for the mean over
those orders that can be built. Knows nothing of serving.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations

Applied = frozenset[str]
"""The changes that are made."""

Value = Callable[[Applied], float]
"""Of a system in which these changes are made."""


@dataclass(frozen=True, slots=True)
class Contribution:
    """What a change adds: its mean over the orders, and the least and the most of any order."""

    mean: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Decomposition:
    """The contributions of all changes, which add up to `total`, and what pairs of them add.

    An interaction is what two changes add together beyond what each adds alone, the mean over all
    systems in which both, either and neither can be made; pairs for which there is none such are
    left out.
    """

    total: float
    contributions: dict[str, Contribution]
    interactions: dict[tuple[str, str], float]


def feasible_orders(
    changes: Sequence[str], after: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, ...]]:
    """The orders in which each change comes later than all that `after` names for it."""
    for order in permutations(changes):
        place = {change: number for number, change in enumerate(order)}
        if all(place[change] > place[other] for change in after for other in after[change]):
            yield order


def feasible_sets(changes: Sequence[str], after: Mapping[str, Sequence[str]]) -> list[Applied]:
    """The sets of changes that some order passes through, the smallest first."""
    return [
        frozenset(chosen)
        for size in range(len(changes) + 1)
        for chosen in combinations(changes, size)
        if all(other in chosen for change in chosen for other in after.get(change, ()))
    ]


def decompose(
    value: Value, changes: Sequence[str], after: Mapping[str, Sequence[str]] | None = None
) -> Decomposition:
    """Split the value of all changes less that of none over the changes.

    `value` is asked of each of `feasible_sets` once. For a factor give logarithms: contributions
    are then logarithms of factors whose product is the whole. O(n! · n) for n changes.
    """
    after = after or {}
    values = {applied: value(applied) for applied in feasible_sets(changes, after)}
    steps: dict[str, list[float]] = {change: [] for change in changes}
    for order in feasible_orders(changes, after):
        made: Applied = frozenset()
        for change in order:
            steps[change].append(values[made | {change}] - values[made])
            made |= {change}
    return Decomposition(
        total=values[frozenset(changes)] - values[frozenset()],
        contributions={
            change: Contribution(sum(added) / len(added), min(added), max(added))
            for change, added in steps.items()
        },
        interactions=_interactions(values, changes),
    )


def _interactions(
    values: Mapping[Applied, float], changes: Sequence[str]
) -> dict[tuple[str, str], float]:
    found = {}
    for one, other in combinations(changes, 2):
        extra = [
            values[made | {one, other}] - values[made | {one}] - values[made | {other}] + base
            for made, base in values.items()
            if not made & {one, other}
            and {made | {one}, made | {other}, made | {one, other}} <= values.keys()
        ]
        if extra:
            found[one, other] = sum(extra) / len(extra)
    return found
