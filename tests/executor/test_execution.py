"""The loop in real time, on a clock that the test turns."""

import itertools

import pandas as pd
import pytest

torch = pytest.importorskip("torch")

import schedsim
from schedsim.executor.execution import LONGEST_NAP
from schedsim.policies import Policy
from schedsim.policies.loading import make_policy
from schedsim.request import Request
from schedsim.results import build_result
from schedsim.scheduler import Step
from tests.core.harness import Jobs
from tests.executor.engines import Clock, Executed, execute, make_execution


class Leisurely(Policy):
    """Runs every second, all that waits."""

    def schedule(self, step: Step) -> None:
        if step.now % 2 < 1:
            super().schedule(step)

    def wake_at(self, step: Step) -> float | None:
        return step.now // 2 * 2 + 2


def moments(executed: Executed) -> pd.DataFrame:
    """The step table with the one end of each iteration."""
    steps = executed.result.steps
    assert (steps["end"].str.len() == 1).all()
    return steps.assign(end=steps["end"].str[0])


def test_an_iteration_is_decided_built_run_and_booked_in_that_order() -> None:
    # Every look at the clock takes a second: the decision, the start, two of the device's timer,
    # the end.
    steps = moments(execute(make_policy("vllm"), Jobs([5], [3]), clock=Clock(1.0)))
    assert steps["decided_at"].tolist() == [1.0, 6.0, 11.0]
    assert steps["start"].tolist() == [2.0, 7.0, 12.0]
    assert steps["end"].tolist() == [5.0, 10.0, 15.0]
    assert steps["host_s"].tolist() == [1.0, 1.0, 1.0]
    assert steps["gpu_s"].tolist() == [1.0, 1.0, 1.0]
    assert steps["gap_s"].isna().tolist() == [True, False, False]
    assert steps["gap_s"].tolist()[1:] == [1.0, 1.0]


def test_time_begins_after_the_warm_up() -> None:
    clock = Clock(0.0)
    execution, runner = make_execution(make_policy("vllm"), Jobs([5], [3]), clock)
    warm_up = runner.warm_up

    def slow_warm_up() -> None:
        warm_up()
        clock.now += 500.0

    runner.warm_up = slow_warm_up  # type: ignore[method-assign]
    assert execution.run()
    assert execution.record().end_time == 0.0


def test_a_request_is_released_when_the_engine_looks_and_it_is_due() -> None:
    jobs = Jobs([5, 5, 5], [4, 4, 4], arrivals=[0.0, 0.3, 7.5])
    executed = execute(make_policy("vllm"), jobs, clock=Clock(0.25))
    requests, steps = executed.result.requests, moments(executed)
    looks = sorted([*steps["decided_at"], *itertools.chain(*steps["idle_looks"])])
    for _, request in requests.iterrows():
        assert request["released"] == min(t for t in looks if t >= request["arrival"])
        assert request["admitted"] == request["released"]
        assert request["ttft_s"] == request["first_token"] - request["arrival"]


def test_an_idle_engine_sleeps_in_short_naps_until_the_next_arrival() -> None:
    clock = Clock(0.0)
    jobs = Jobs([5, 5], [2, 2], arrivals=[0.0, 3.0])
    executed = execute(make_policy("vllm"), jobs, clock=clock)
    assert max(clock.naps) <= LONGEST_NAP
    assert sum(clock.naps) == pytest.approx(3.0)
    steps = moments(executed)
    assert steps["decided_at"].tolist() == pytest.approx([0.0, 0.0, 3.0, 3.0])
    assert steps["gap_s"].isna().tolist() == [True, False, True, False]
    assert [len(looks) for looks in steps["idle_looks"]] == [0, 0, 1, 0]


def test_an_idle_engine_wakes_when_the_policy_asks() -> None:
    clock = Clock(0.0)
    jobs = Jobs([5, 5], [1, 1], arrivals=[0.0, 1.5])
    executed = execute(Leisurely(), jobs, clock=clock)
    assert moments(executed)["decided_at"].tolist() == pytest.approx([0.0, 2.0])


def test_in_closed_loop_the_next_request_comes_when_one_ends() -> None:
    jobs = Jobs([5] * 6, [3] * 6)
    executed = execute(make_policy("vllm"), jobs, clock=Clock(0.01), concurrency=2)
    steps = moments(executed)
    assert (steps["running"] + steps["waiting"]).max() == 2
    requests = executed.result.requests
    ends = sorted(requests["finished"])
    assert requests["arrival"].tolist() == [0.0, 0.0, *ends[:4]]


def test_all_at_once_are_there_at_the_first_decision() -> None:
    executed = execute(make_policy("vllm"), Jobs([5] * 5, [3] * 5), clock=Clock(0.01))
    assert executed.iterations[0].admitted == [0, 1, 2, 3, 4]


def test_an_iteration_that_only_preempts_runs_nothing_and_is_recorded() -> None:
    class TakesBack(Policy):
        def schedule(self, step: Step) -> None:
            if step.iteration == 1:
                step.preempt(step.running[0])
            else:
                super().schedule(step)

    executed = execute(TakesBack(), Jobs([5], [3]))
    assert [sum(i.tokens.values()) for i in executed.iterations] == [5, 0, 6, 1]
    assert executed.iterations[1].preempted == [0]


def test_stop_ends_a_wait() -> None:
    class PressesInTheFifthNap(Clock):
        def sleep(self, seconds: float) -> None:
            super().sleep(seconds)
            if len(self.naps) == 5:
                execution.stop()

    clock = PressesInTheFifthNap(0.0)
    jobs = Jobs([5, 5], [2, 2], arrivals=[0.0, 3600.0])
    execution, _ = make_execution(make_policy("vllm"), jobs, clock)
    assert execution.run() is False
    assert len(clock.naps) == 5
    summary = build_result(execution.record("interrupted")).summary
    assert summary["requests"]["finished"] == 1
    assert summary["requests"]["unfinished"] == 1


def test_what_a_failing_hook_leaves_behind_is_a_whole_table() -> None:
    class Raises(Policy):
        def on_finish(self, request: Request, step: Step) -> None:
            raise ValueError("no such tenant")

    execution, _ = make_execution(Raises(), Jobs([5, 3], [2, 2]), Clock(0.01))
    with pytest.raises(schedsim.PolicyError, match="no such tenant"):
        execution.run()
    result = build_result(execution.record("failed"))
    assert len(result.steps) == 2
    assert result.steps["sampled"].sum() == result.summary["output_tokens"] == 4
    assert result.steps[["host_s", "gpu_s"]].notna().all(axis=None)
    assert (result.requests["status"] == "finished").all()
