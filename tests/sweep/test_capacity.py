"""A search ends at the threshold, and goes on where it was broken off."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.errors import ConfigError
from schedsim.sweep.capacity import Condition, Search, parse_condition
from schedsim.sweep.config import CapacityConfig


def search(low: float = 0.5, high: float = 8.0, tolerance: float = 0.05) -> Search:
    keep = ["latency.whole.ttft_s.p99 <= 1"]
    return Search(
        CapacityConfig(setting="rate_scale", low=low, high=high, tolerance=tolerance, keep=keep)
    )


def answer(value: float, threshold: float) -> dict[str, float | None]:
    return {"error": None, "latency.whole.ttft_s.p99": 0.5 if value <= threshold else 2.0}


@given(st.floats(0.1, 20.0), st.floats(0.01, 1.0))
def test_it_ends_within_the_tolerance_of_the_threshold(threshold: float, tolerance: float) -> None:
    looking, tried = search(tolerance=tolerance), []
    while (value := looking.next_value()) is not None:
        tried.append(value)
        looking.tell(value, answer(value, threshold))
    assert len(tried) <= 12
    assert len(set(tried)) == len(tried)
    if threshold < 0.5:
        assert looking.kept is None
        assert tried == [0.5]
    elif threshold >= 8.0:
        assert (looking.kept, looking.missed) == (8.0, None)
    else:
        assert looking.kept is not None
        assert looking.missed is not None
        assert looking.kept <= threshold < looking.missed <= looking.kept * (1 + tolerance)
    again = search(tolerance=tolerance)
    for value in tried:
        assert again.next_value() == value
        again.tell(value, answer(value, threshold))
    assert again.next_value() is None


def test_a_run_that_failed_or_lacks_the_figure_does_not_keep_it() -> None:
    assert not search().keeps({"error": "no room", "latency.whole.ttft_s.p99": 0.1})
    assert not search().keeps({"error": None, "latency.whole.ttft_s.p99": None})
    assert search().keeps({"error": None, "latency.whole.ttft_s.p99": 1.0})


def test_conditions_are_read() -> None:
    assert parse_condition("goodput.whole.share>=0.9") == Condition(
        "goodput.whole.share", ">=", 0.9
    )
    assert parse_condition(" preemptions <= 1e2 ").bound == 100.0
    for wrong in ("goodput", "a < 1", "a <= b", "<= 1", "a <= 1 and b <= 2"):
        with pytest.raises(ConfigError, match="write FIGURE <= NUMBER"):
            parse_condition(wrong)
