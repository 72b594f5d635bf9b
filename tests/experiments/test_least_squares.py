"""Least squares without negative coefficients; outliers; dependent columns."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.experiments.least_squares import (
    independent,
    inflation,
    nonnegative,
    robust_nonnegative,
)


@given(
    seed=st.integers(0, 2**32 - 1), columns=st.integers(1, 8), noise=st.sampled_from([0, 1e-9, 1])
)
def test_no_solution_without_negative_coefficients_is_closer(
    seed: int, columns: int, noise: float
) -> None:
    """Karush, Kuhn and Tucker: what is used has no slope left, what is not only makes worse."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(int(rng.integers(columns, 40)), columns)) + rng.integers(0, 3)
    target = matrix @ np.maximum(rng.normal(size=columns), 0) + noise * rng.normal(size=len(matrix))
    solution = nonnegative(matrix, target)
    assert (solution >= 0).all()
    gradient = matrix.T @ (matrix @ solution - target)
    scale = 1e-8 * (np.abs(matrix.T @ target).max() + 1e-300)
    assert (gradient >= -scale).all()
    assert (np.abs(gradient[solution > 0]) <= scale).all()


def test_of_columns_that_cannot_be_told_apart_the_cheapest_is_used() -> None:
    rng = np.random.default_rng(2)
    column = rng.integers(1, 50, 80).astype(np.float64)
    matrix = np.column_stack([column, column, np.ones(80)])
    tie, price = 1e-5 * np.diag(np.linalg.norm(matrix, axis=0)), 1e-7 * matrix.sum(axis=0)
    for cheap, order in ((0, [1.0, 3.0, 1.0]), (1, [3.0, 1.0, 1.0])):
        found = robust_nonnegative(matrix, 2 * column + 5, None, tie, price * order)
        assert found[1 - cheap] == pytest.approx(0.0, abs=1e-3)
        assert found[cheap] == pytest.approx(2.0, rel=1e-3)


def test_a_prior_holds_only_where_the_rows_say_nothing() -> None:
    """Two slopes that are to be alike: one is measured, the other is not."""
    matrix = np.column_stack([np.linspace(1, 2, 50), np.zeros(50)])
    prior = 1e-3 * np.array([[-1.0, 1.0]])
    found = robust_nonnegative(matrix, 3 * matrix[:, 0], np.ones(50), prior)
    np.testing.assert_allclose(found, [3.0, 3.0], rtol=1e-6)


@given(seed=st.integers(0, 2**32 - 1))
def test_outliers_do_not_move_the_fit(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = np.column_stack([np.ones(400), rng.integers(0, 50, 400), rng.integers(0, 900, 400)])
    true = np.array([5e-3, 1e-4, 2e-5])
    clean = counts @ true
    measured = clean * (1 + 0.01 * rng.normal(size=400))
    measured[rng.choice(400, 12, replace=False)] += 0.5  # a pause of the operating system
    robust = robust_nonnegative(counts, measured, clean)
    np.testing.assert_allclose(counts @ robust, clean, rtol=0.03)
    plain = nonnegative(counts / clean[:, None], measured / clean)
    assert np.abs(counts @ plain / clean - 1).max() > 0.1


def test_an_exact_fit_is_exact() -> None:
    rng = np.random.default_rng(1)
    counts = np.column_stack([np.ones(50), rng.integers(0, 50, 50), rng.integers(0, 9000, 50)])
    true = np.array([6e-3, 0.0, 4e-8])
    found = robust_nonnegative(counts, counts @ true, counts @ true)
    np.testing.assert_allclose(found, true, rtol=1e-12, atol=1e-18)


def test_a_column_that_others_make_up_is_left_out() -> None:
    one, other = np.array([1.0, 0.0, 2.0, 5.0]), np.array([0.0, 3.0, 1.0, 1.0])
    matrix = np.column_stack([one, np.zeros(4), other, one + 2 * other, np.arange(4.0)])
    assert independent(matrix, 1e-3) == [0, 2, 4]


def test_inflation_is_1_for_orthogonal_columns_and_grows_as_they_align() -> None:
    np.testing.assert_allclose(inflation(np.eye(4)[:, :3] * 7), 1.0)
    aligned = np.column_stack([np.ones(4), [1.0, 1.0, 1.0, 1.01]])
    assert (inflation(aligned) > 1e4).all()
