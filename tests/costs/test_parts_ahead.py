"""Durations of many iterations at once: bit for bit those of a loop, under every model."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.backend.pace import TimesAhead, make_pace, times_ahead
from schedsim.costs import load_gpu, load_model
from schedsim.costs.base import AheadCost, PartsAhead
from schedsim.costs.fitted import make_fitted
from schedsim.costs.linear import LinearCost, load_linear
from schedsim.costs.noise import StepNoise
from schedsim.costs.roofline import RooflineCost
from schedsim.costs.throttle import Throttle
from schedsim.scheduler import Batch
from tests.costs.test_fitted import content

MODELS: dict[str, AheadCost] = {
    "linear": load_linear("vidur-closed-form"),
    "linear with padding and copies": LinearCost(0.3, 0.07, 0.011, 1e-7, 1e-5, 0.1, 0.2),
    "roofline": RooflineCost(load_model("llama-3-8b"), load_gpu("h100")),
    "fitted": make_fitted(content(), "file"),
    "fitted with noise": make_fitted(content(), "file"),
}
NOISE = StepNoise({"decode": [0.8, 0.95, 1.0, 1.3, 7.0]}, np.random.default_rng(5))
batches = st.builds(
    Batch,
    decode_requests=st.integers(1, 300),
    decode_context=st.integers(1, 3_000_000),
    longest_context=st.integers(1, 100_000),
    iteration=st.integers(0, 10_000),
    padding_requests=st.integers(0, 20),
    padding_context=st.integers(0, 100_000),
)


def told(times: TimesAhead) -> list[tuple[float, float, float]]:
    columns = (times.decided_at, times.start, times.end)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@pytest.mark.parametrize("name", MODELS)
@given(batch=batches, iterations=st.integers(1, 40), now=st.floats(0.0, 1e6), limit=st.floats(0, 9))
def test_times_are_those_of_a_loop(
    name: str, batch: Batch, iterations: int, now: float, limit: float
) -> None:
    batch.sampled = batch.decode_requests
    due = now + limit
    noise = NOISE if name == "fitted with noise" else None
    pace = make_pace(MODELS[name], noise)
    assert pace.parts_ahead is not None
    times = times_ahead(now, pace.parts_ahead(batch, iterations), iterations)
    assert times is not None
    expected, one = [], replace(batch)
    for _ in range(iterations):
        host, device, gap = pace.parts_of(one, now)
        start = now + host
        end = start + device
        expected.append((now, start, end))
        now = end + gap
        one.decode_context += one.decode_requests
        one.longest_context += 1
        one.iteration += 1
    assert told(times) == expected
    assert times.next_look == now
    first, rest = times.split(due)
    looks = [decided_at for decided_at, *_ in expected]
    before = max(1, sum(look < due for look in looks))
    assert told(first) == expected[:before]
    assert first.next_look == [*looks, now][before]
    assert (told(rest) if rest is not None else []) == expected[before:]
    assert rest is None or rest.next_look == now


@given(batch=batches, iterations=st.integers(1, 40))
def test_throttled_times_are_those_of_batches_that_follow_their_like(
    batch: Batch, iterations: int
) -> None:
    cost = make_fitted(
        content(throttle=Throttle(window_s=0.1, slowdown=1e-3, context=0.01)), "file"
    )
    told, one = cost.parts_ahead(batch, iterations), replace(batch)
    assert isinstance(told.device, np.ndarray)
    for device in told.device.tolist():
        assert device == cost.parts(one).device
        one.decode_context += one.decode_requests
        one.longest_context += 1


@pytest.mark.parametrize("bad", [-1e-9, math.nan, math.inf])
def test_a_duration_that_is_none_is_left_to_the_loop_which_says_so(bad: float) -> None:
    device = np.array([0.1, bad, 0.1])
    assert times_ahead(0.0, PartsAhead(0.0, device, 0.0), 3) is None
    assert times_ahead(0.0, PartsAhead(0.5, device, 0.5), 3) is None
