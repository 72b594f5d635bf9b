"""The search for a static batch size: never below the naive one, near the best of one hill."""

import math

from hypothesis import given
from hypothesis import strategies as st

from schedsim.experiments.ablation.search import search_size

sizes = st.integers(1, 600)


@given(naive=sizes, limit=sizes, values=st.lists(st.integers(0, 9), min_size=600, max_size=600))
def test_the_size_found_is_in_range_and_never_worse_than_the_naive_one(
    naive: int, limit: int, values: list[int]
) -> None:
    asked: list[int] = []

    def value(size: int) -> float:
        asked.append(size)
        return float(values[size - 1])

    found = search_size(value, naive, limit)
    assert 1 <= found <= limit
    assert len(asked) == len(set(asked))
    assert found in asked
    assert values[found - 1] == max(values[size - 1] for size in asked)
    assert values[found - 1] >= values[min(naive, limit) - 1]


@given(naive=sizes, limit=sizes, best=sizes)
def test_one_hill_is_climbed_to_within_a_step(naive: int, limit: int, best: int) -> None:
    best = min(best, limit)
    found = search_size(lambda size: -abs(math.log(size / best)), naive, limit)
    assert best / found < 1.5
    assert found / best < 1.5


def test_the_naive_size_alone_where_nothing_else_fits() -> None:
    assert search_size(lambda size: float(size), 54, 1) == 1
