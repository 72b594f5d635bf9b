"""Token times rebuilt from spans, against a list per token."""

from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from schedsim.request import Request
from schedsim.results import build_result
from schedsim.results.columns import RequestColumns, StepColumns
from schedsim.results.token_times import TokenTimes, range_maximum
from schedsim.scheduler import Step
from tests.results.runs import VLLM, Run, make_trace, runs, serve


def token_times(run: Run) -> TokenTimes:
    record = run.record
    requests = RequestColumns.from_record(record)
    steps = StepColumns.from_log(record.steps)
    return TokenTimes.from_log(record.tokens, requests.first_token, steps.end)


@given(runs())
def test_every_token_has_its_place_in_time(run: Run) -> None:
    tokens = token_times(run)
    rebuilt: dict[int, dict[int, float]] = {
        request.id: {0: request.first_token}
        for request in run.record.released_requests()
        if request.first_token is not None
    }
    for request, index, end in zip(
        tokens.gap_request, tokens.gap_index, tokens.gap_end, strict=True
    ):
        assert int(index) not in rebuilt[int(request)]
        rebuilt[int(request)][int(index)] = float(end)
    for request, first, last, index in zip(
        tokens.span_request, tokens.span_first, tokens.span_last, tokens.span_index, strict=True
    ):
        for offset, place in enumerate(range(first, last + 1)):
            assert int(index) + offset not in rebuilt[int(request)]
            rebuilt[int(request)][int(index) + offset] = float(tokens.decode_ends[place])
    expected = {request: dict(enumerate(times)) for request, times in run.token_times.items()}
    assert rebuilt == expected


@given(runs(), st.floats(0, 20), st.floats(0, 20))
def test_token_gaps_are_those_of_the_lists(run: Run, after: float, seconds: float) -> None:
    tokens = token_times(run)
    for low, high in ((-np.inf, np.inf), (after, after + seconds)):
        values, weights = tokens.itl_samples(low, high)
        expected = [
            gap
            for request, times in run.token_times.items()
            for gap, end in zip(run.gaps(request), times[1:], strict=True)
            if low < end <= high
        ]
        assert sorted(np.repeat(values, weights)) == sorted(expected)


@given(runs())
def test_the_longest_gap_is_that_of_the_list(run: Run) -> None:
    longest = token_times(run).longest_gap(len(run.record.trace))
    for request in range(len(run.record.trace)):
        gaps = run.gaps(request)
        assert (np.isnan(longest[request]) and not gaps) or longest[request] == max(gaps)


@given(runs(), st.floats(0, 5), st.sampled_from([0.0, 0.25, 0.5, 1.0, np.inf]))
def test_tokens_on_time_are_counted_token_by_token(run: Run, ttft: float, tpot: float) -> None:
    requests = RequestColumns.from_record(run.record)
    size = len(requests)
    deadline = requests.arrival + ttft
    counted = token_times(run).tokens_on_time(requests.first_token, deadline, np.full(size, tpot))
    for request in range(size):
        due = [
            deadline[request] + (index * tpot if index else 0.0)
            for index in range(len(run.token_times.get(request, [])))
        ]
        times = run.token_times.get(request, [])
        assert counted[request] == sum(t <= d for t, d in zip(times, due, strict=True))


@dataclass
class Fragile(VLLM):
    """Raises when its N-th request finishes, after the iteration's tokens were booked."""

    survives: int = 0

    def on_finish(self, request: Request, step: Step) -> None:
        self.survives -= 1
        if self.survives < 0:
            raise RuntimeError("on purpose")


@given(st.integers(0, 5), st.lists(st.integers(1, 30), min_size=7, max_size=7))
def test_a_run_whose_policy_raised_between_two_books_still_adds_up(
    survives: int, outputs: list[int]
) -> None:
    trace = make_trace([0.3 * row for row in range(7)], [9, 3, 14, 1, 5, 20, 2], outputs)
    run = serve(trace, Fragile(survives=survives), lambda row: 0.1 + row / 1000, blocks=16)
    assert run.record.interrupted is not None
    tokens = token_times(run)
    summary = build_result(run.record).summary
    started = sum(r.first_token is not None for r in run.record.released_requests())
    assert set(tokens.gap_end) <= {*run.record.steps.end, run.record.end_time}
    if len(run.record.steps):
        gaps = summary["latency"]["whole"]["itl_s"]["count"]
        assert gaps == summary["output_tokens"] - started


@given(
    st.lists(st.floats(0, 10), min_size=1, max_size=70),
    st.lists(st.tuples(st.integers(0, 69), st.integers(0, 69)), max_size=20),
)
def test_range_maximum_is_the_maximum(values: list[float], pairs: list[tuple[int, int]]) -> None:
    bounds = [sorted((a % len(values), b % len(values))) for a, b in pairs]
    first = np.array([low for low, _ in bounds], dtype=np.int64)
    last = np.array([high for _, high in bounds], dtype=np.int64)
    expected = [max(values[low : high + 1]) for low, high in bounds]
    assert range_maximum(np.array(values), first, last).tolist() == expected
