"""The load generator: who is handed over when, in open and in closed loop."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from schedsim.errors import ConfigError
from schedsim.load import Load
from schedsim.policies import Policy
from schedsim.request import Request, Status
from schedsim.scheduler import Step
from tests.core.harness import Jobs, simulate


def make(jobs: Jobs, concurrency: int | None = None) -> Load:
    return Load(jobs.trace(), jobs.split(), concurrency=concurrency)


def jobs_of(
    arrivals: Sequence[float],
    parents: Sequence[int] | None = None,
    thinks: Sequence[float] | None = None,
) -> Jobs:
    return Jobs([4] * len(arrivals), [2] * len(arrivals), arrivals, parents=parents, thinks=thinks)


def next_time(load: Load) -> float | None:
    """As a call, so that its value is not taken to stay what it was."""
    return load.next_time


def take_all(load: Load) -> list[tuple[int, float]]:
    """Everyone that is known now, with the times at which they are due."""
    taken = []
    while load.next_time is not None:
        due = load.next_time
        request, _ = load.take()
        assert request.arrival == due
        taken.append((request.id, request.arrival))
    return taken


def test_an_open_loop_follows_the_trace() -> None:
    load = make(jobs_of([0.0, 1.5, 1.5, 4.0]))
    assert len(load) == 4
    assert take_all(load) == [(0, 0.0), (1, 1.5), (2, 1.5), (3, 4.0)]
    assert next_time(load) is None


def test_requests_carry_what_the_trace_says() -> None:
    jobs = Jobs([4, 5], [2, 3], limits=[7, 8], tenants=[1, -1], priorities=[5, 6])
    (first, first_output), (second, _) = (load := make(jobs)).take(), load.take()
    assert (first.prompt_tokens, first.output_limit, first_output) == (4, 7, 2)
    assert (first.tenant, first.priority, first.session) == (1, 5, -1)
    assert (second.tenant, second.output_limit, second.ttft_slo) == (-1, 8, None)


def test_a_child_comes_its_think_time_after_its_parent_ended() -> None:
    load = make(jobs_of([0, 1, 2], parents=[-1, 0, -1], thinks=[0, 2.5, 0]))
    parent, _ = load.take()
    other, _ = load.take()
    assert (parent.id, other.id) == (0, 2)
    assert next_time(load) is None
    load.ended(other, 5.0)
    assert next_time(load) is None, "nobody waits for request 2"
    load.ended(parent, 7.0)
    assert next_time(load) == 9.5
    assert take_all(load) == [(1, 9.5)]


def test_a_parent_may_have_several_children() -> None:
    load = make(jobs_of([0] * 4, parents=[-1, 0, 0, 0], thinks=[0, 3.0, 1.0, 1.0]))
    parent, _ = load.take()
    load.ended(parent, 10.0)
    assert take_all(load) == [(2, 11.0), (3, 11.0), (1, 13.0)]


def test_at_equal_times_requests_come_in_trace_order() -> None:
    """Whether they are known from the trace or were released by a parent."""
    parents, thinks = [-1, 0, -1, 0, -1], [0, 4.0, 0, 4.0, 0]
    load = make(jobs_of([0, 0, 5.0, 5.0, 5.0], parents=parents, thinks=thinks))
    parent, _ = load.take()
    load.ended(parent, 1.0)
    assert take_all(load) == [(1, 5.0), (2, 5.0), (3, 5.0), (4, 5.0)]


def test_concurrency_lets_the_next_one_in_at_each_end() -> None:
    load = make(jobs_of([0, 10, 20, 30]), concurrency=2)
    first, _ = load.take()
    second, _ = load.take()
    assert (first.id, second.id, first.arrival, second.arrival) == (0, 1, 0.0, 0.0)
    assert next_time(load) is None
    load.ended(second, 3.0)
    assert take_all(load) == [(2, 3.0)]
    load.ended(first, 4.0)
    assert take_all(load) == [(3, 4.0)]


def test_concurrency_counts_a_session_until_its_last_answer() -> None:
    """Two users: who thinks is still there, and a new session begins when one is over."""
    load = make(jobs_of([0] * 5, parents=[-1, 0, -1, -1, 3], thinks=[0, 9.0, 0, 0, 1.0]), 2)
    first, _ = load.take()
    second, _ = load.take()
    assert (first.id, second.id) == (0, 2)
    load.ended(first, 2.0)
    assert next_time(load) == 11.0, "its session goes on, so nobody else comes in"
    load.ended(second, 3.0)
    assert take_all(load) == [(3, 3.0), (1, 11.0)]


def test_concurrency_beyond_the_trace_releases_all_at_once() -> None:
    assert take_all(make(jobs_of([0, 1]), concurrency=10)) == [(0, 0.0), (1, 0.0)]


@pytest.mark.parametrize("concurrency", [0, -3])
def test_concurrency_below_one_is_refused(concurrency: int) -> None:
    with pytest.raises(ConfigError, match=f"--concurrency {concurrency} must be at least 1"):
        make(jobs_of([0]), concurrency)


def test_never_more_are_outstanding_than_the_concurrency() -> None:
    jobs = Jobs(
        [4] * 30,
        [1 + number % 7 for number in range(30)],
        parents=[number - 1 if number % 3 else -1 for number in range(30)],
        thinks=[0.5 * (number % 4) for number in range(30)],
    )
    run = simulate(Policy(), jobs, concurrency=3)
    changes = []
    for request in run.requests.values():
        assert request.finished is not None
        changes += [(request.arrival, 1), (request.finished, -1)]
    outstanding = most = 0
    for _, change in sorted(changes):  # at equal times ends first
        outstanding += change
        most = max(most, outstanding)
    assert (outstanding, most) == (0, 3)
    assert len(run.requests) == 30


def test_a_rejected_parent_releases_its_child() -> None:
    jobs = Jobs([4, 4, 4], [2] * 3, arrivals=[3, 3, 3], parents=[-1, 0, 1], thinks=[0, 2.0, 2.0])

    class Refuses(Policy):
        def accept(self, request: Request, step: Step) -> bool:
            return request.id != 0

    run = simulate(Refuses(), jobs)
    assert [r.status for r in run.requests.values()] == ["rejected", "finished", "finished"]
    assert run.requests[1].arrival == 5.0
    assert run.requests[2].arrival == 9.0
    too_long = simulate(Policy(), jobs, max_model_len=5)
    assert [r.status for r in too_long.requests.values()] == [Status.REJECTED] * 3
    assert [r.arrival for r in too_long.requests.values()] == [3.0, 5.0, 7.0]


def test_completions_come_before_arrivals_and_arrivals_before_the_decision() -> None:
    """A seat that comes free at 2 s serves the request that arrives at 2 s in the same moment."""
    run = simulate(Policy(), Jobs([4, 4], [2, 1], arrivals=[0, 2]), seats=1)
    assert [i.start for i in run.iterations] == [0.0, 1.0, 2.0]
    assert run.iterations[2].admitted == [1]


def test_who_arrives_during_an_iteration_waits_for_the_next_decision() -> None:
    run = simulate(Policy(), Jobs([4, 4], [3, 1], arrivals=[0, 0.25]))
    assert run.iterations[1].admitted == [1]
    request = run.requests[1]
    assert (request.arrival, request.released, request.admitted) == (0.25, 0.25, 1.0)
    assert run.result.requests["queue_s"][1] == 0.75


def test_the_runs_targets_are_those_of_requests_without_their_own() -> None:
    trace = replace(
        jobs_of([0, 0]).trace(), ttft_slo=np.array([0.5, np.nan]), tpot_slo=np.array([np.nan, 0.1])
    )
    load = Load(trace, jobs_of([0, 0]).split(), ttft_slo=2.0, tpot_slo=0.2)
    requests = [load.take()[0], load.take()[0]]
    assert [request.ttft_slo for request in requests] == [0.5, 2.0]
    assert [request.tpot_slo for request in requests] == [0.2, 0.1]
    plain = make(jobs_of([0])).take()[0]
    assert (plain.ttft_slo, plain.tpot_slo) == (None, None)
