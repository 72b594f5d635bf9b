"""`Throttle`: what it solves for, what never falls, and the rate that it goes by."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.backend.pace import make_pace
from schedsim.costs.fitted import make_fitted
from schedsim.costs.throttle import Throttle, TokenRate
from schedsim.experiments.validation.scaled_cost import scaled
from schedsim.scheduler import Batch
from schedsim.scheduler.batch import BatchShape
from tests.costs.shapes import batch_shapes, shape_of
from tests.costs.test_fitted import content

throttles = st.builds(
    Throttle, window_s=st.floats(1e-3, 1.0), slowdown=st.floats(1e-9, 1e-3, exclude_min=True)
)
seconds = st.floats(1e-5, 2.0)
tokens = st.integers(1, 20_000)
rates = st.floats(0.0, 1e6)
shares = st.floats(0.0, 1.0)


@given(throttle=throttles, alone=seconds, share=shares, count=tokens, rate=rates)
def test_seconds_solve_their_equation(
    throttle: Throttle, alone: float, share: float, count: int, rate: float
) -> None:
    heated = share * alone
    told = throttle.seconds(alone, heated, count, rate)
    at_end = (rate + count / throttle.window_s) / (1 + told / throttle.window_s)
    assert told == pytest.approx(alone + heated * throttle.slowdown * at_end, rel=1e-9)
    assert told >= alone


@given(throttle=throttles, alone=seconds, share=shares, count=tokens)
def test_what_follows_its_like_settles_at_the_sustained_seconds(
    throttle: Throttle, alone: float, share: float, count: int
) -> None:
    heated = share * alone
    sustained = throttle.sustained(alone, heated, count)
    assert throttle.seconds(alone, heated, count, count / sustained) == pytest.approx(
        sustained, rel=1e-9
    )


@given(throttle=throttles, alone=seconds, share=shares, count=tokens, more=st.floats(0.0, 1.0))
def test_sustained_seconds_never_fall(
    throttle: Throttle, alone: float, share: float, count: int, more: float
) -> None:
    heated = share * alone
    told = throttle.sustained(alone, heated, count)
    assert throttle.sustained(alone + more, heated, count) >= told
    assert throttle.sustained(alone, min(heated + more, alone), count) >= told
    assert throttle.sustained(alone, heated, count + 1) >= told >= alone


def test_the_rate_is_a_mean_that_fades() -> None:
    rate = TokenRate(0.1)
    assert rate.at(5.0) == 0.0
    assert rate.ran(100, 5.0, 0.1) == pytest.approx(500.0)
    assert rate.at(5.1) == pytest.approx(500.0)
    assert rate.at(5.2) == pytest.approx(250.0)
    for turn in range(500):
        rate.ran(100, 5.1 + 0.1 * turn, 0.1)
    assert rate.at(0.0) == pytest.approx(1000.0), "that of what runs all the time"


THROTTLE = Throttle(window_s=0.5, slowdown=1e-3, context=0.25)
COST = make_fitted(content(throttle=THROTTLE), "file")


@given(shape=batch_shapes(), rate=rates)
def test_only_arithmetic_gets_slower(shape: BatchShape, rate: float) -> None:
    cool, told = make_fitted(content(), "file").parts(shape), COST.parts_after(shape, rate)
    assert (told.host, told.gap) == (cool.host, cool.gap)
    assert told.device >= cool.device
    highest = rate + THROTTLE.tokens_of(shape) / THROTTLE.window_s
    assert told.device <= cool.device * (1 + THROTTLE.slowdown * highest) * (1 + 1e-12)


def test_contexts_that_are_read_count_as_tokens() -> None:
    shape = shape_of([(30, 500)], [100, 300], [90])
    assert Throttle(window_s=1.0, slowdown=1e-3).tokens_of(shape) == 33
    assert THROTTLE.tokens_of(shape) == 33 + 0.25 * 490


@given(shape=batch_shapes(), rate=rates)
def test_without_a_throttle_no_rate_counts(shape: BatchShape, rate: float) -> None:
    cost = make_fitted(content(), "file")
    assert cost.parts_after(shape, rate) == cost.parts(shape)


def test_a_pace_remembers_what_ran_and_forgets_while_idle() -> None:
    pace = make_pace(COST)
    assert pace.parts_ahead is None, "what many take depends on each"
    prompt = Batch(prefill_requests=1, prefill_tokens=500, prefill_attention=125e3, sampled=1)
    first = pace.parts_of(prompt, 0.0)
    second = pace.parts_of(prompt, first.device)
    late = pace.parts_of(prompt, 1e9)
    assert first == COST.parts_after(prompt, 0.0)
    assert second.device > first.device
    assert late.device == pytest.approx(first.device, rel=1e-6)


@given(shape=batch_shapes(), rate=rates)
def test_scaled_times_are_throttled_alike(shape: BatchShape, rate: float) -> None:
    twice = scaled(COST, 2.0)
    pace = make_pace(twice)
    assert pace.parts_ahead is None
    told, expected = twice.parts_after(shape, rate), COST.parts_after(shape, rate)  # type: ignore[attr-defined]
    assert told == tuple(2.0 * part for part in expected)


@given(throttle=throttles, each=st.lists(seconds, min_size=1, max_size=9), share=shares)
def test_many_at_once_have_the_same_bits(
    throttle: Throttle, each: list[float], share: float
) -> None:
    heated = share * min(each)
    told = throttle.sustained_each(np.array(each), heated, 77)
    assert told.tolist() == [throttle.sustained(alone, heated, 77) for alone in each]
