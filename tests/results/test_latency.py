"""The requests table and the objectives, against their definitions row by row."""

import math

import numpy as np
import pytest
from hypothesis import given

from schedsim.request import Status
from schedsim.results import SLO, RequestLog, RunRecord, StepLog, build_result
from schedsim.scheduler import TokenLog
from tests.results.runs import VLLM, Run, make_trace, runs, serve

REQUEST_COLUMNS = (
    "request replica arrival released admitted first_token finished status reason prompt_tokens "
    "output_tokens cached_tokens recomputed_tokens preemptions queue_s requeue_s ttft_s tpot_s "
    "max_itl_s e2e_s normalized_latency_s tenant"
)
STEP_COLUMNS = (
    "step replica iterations decided_at start end last_arrival_seen prefill_requests "
    "prefill_tokens prefill_context prefill_attention prefill_longest decode_requests "
    "context_tokens longest_context padding_requests padding_context sampled swapped_blocks "
    "copied_blocks running waiting free_blocks preempted stored_tokens reserved_slots "
    "unusable_slots failed_though_enough idle_looks"
)


def test_the_tables_have_the_columns_of_the_contract_in_order() -> None:
    result = build_result(serve(make_trace([0.0], [3], [2]), VLLM(), lambda _: 1.0).record)
    assert result.requests_table.column_names == REQUEST_COLUMNS.split()
    assert result.steps_table.column_names == STEP_COLUMNS.split()
    assert list(result.requests.columns) == REQUEST_COLUMNS.split()
    assert [list(ends) for ends in result.steps["end"]] == [[1.0], [2.0]]


@given(runs())
def test_each_row_follows_the_definitions(run: Run) -> None:
    rows = build_result(run.record).requests_table.to_pylist()
    seen = {request.id: request for request in run.record.released_requests()}
    assert [row["request"] for row in rows] == list(range(len(run.record.trace)))
    for row in rows:
        request = seen.get(row["request"])
        if request is None:
            assert (row["status"], row["released"], row["ttft_s"]) == ("unfinished", None, None)
            continue
        times = run.token_times.get(request.id, [])
        gaps = run.gaps(request.id)
        arrival = request.arrival
        assert row["max_itl_s"] == (max(gaps) if gaps else None)
        assert row["ttft_s"] == (times[0] - arrival if times else None)
        assert row["queue_s"] == (None if request.admitted is None else request.admitted - arrival)
        assert row["preemptions"] == request.preemptions
        if row["status"] == "finished":
            assert len(times) == row["output_tokens"]
            assert row["e2e_s"] == times[-1] - arrival
            assert row["normalized_latency_s"] == (times[-1] - arrival) / len(times)
            tpot = (times[-1] - times[0]) / (len(times) - 1) if gaps else None
            assert row["tpot_s"] == tpot
        else:
            assert row["e2e_s"] is row["tpot_s"] is row["normalized_latency_s"] is None


@given(runs(slo=SLO(ttft=1.5, tpot=0.4)))
def test_goodput_judges_each_request_and_each_token(run: Run) -> None:
    result = build_result(run.record)
    judged = met = due = on_time = 0
    for row in result.requests_table.to_pylist():
        if row["status"] == "unfinished":
            continue
        judged += 1
        due += row["output_tokens"]
        deadline = row["arrival"] + 1.5
        for index, time in enumerate(run.token_times.get(row["request"], [])):
            on_time += time <= deadline + index * 0.4
        if row["status"] == "finished" and row["ttft_s"] <= 1.5:
            met += row["tpot_s"] is None or row["tpot_s"] <= 0.4
    whole = result.summary["goodput"]["whole"]
    assert whole["share"] == (met / judged if judged else None)
    assert whole["token_deadline_attainment"] == (on_time / due if due else None)
    makespan = result.summary["makespan_s"]
    assert whole["requests_per_s"] == (met / makespan if makespan else None)


def test_a_request_s_own_objective_goes_first_and_one_without_is_not_judged() -> None:
    own = {
        "ttft_slo": np.array([0.5, np.nan, np.nan]),
        "tpot_slo": np.array([np.nan, np.nan, np.nan]),
    }
    trace = make_trace([0.0, 10.0, 20.0], [3, 3, 3], [2, 2, 2], **own)
    strict = build_result(serve(trace, VLLM(), lambda _: 1.0).record).summary
    assert strict["goodput"]["whole"]["share"] == 0.0
    general = build_result(serve(trace, VLLM(), lambda _: 1.0, slo=SLO(ttft=1.0)).record).summary
    assert general["goodput"]["whole"]["share"] == 2 / 3
    plain = make_trace([0.0], [3], [2])
    assert build_result(serve(plain, VLLM(), lambda _: 1.0).record).summary["goodput"] is None


@given(runs())
def test_statuses_add_up_and_nothing_is_nan(run: Run) -> None:
    summary = build_result(run.record).summary
    counts = summary["requests"]
    statuses = ("finished", "rejected", "failed", "unfinished")
    assert sum(counts[status] for status in statuses) == counts["kept"]
    assert counts["read"] - sum(counts["dropped"].values()) == counts["kept"]
    assert sum(counts["rejected_by_reason"].values()) == counts["rejected"]
    assert all(not math.isnan(value) for value in _numbers(summary))


def _numbers(content: object) -> list[float]:
    if isinstance(content, dict):
        return [number for value in content.values() for number in _numbers(value)]
    if isinstance(content, list):
        return [number for value in content for number in _numbers(value)]
    assert content is None or isinstance(content, str | bool | int | float), type(content)
    return [content] if isinstance(content, float) else []


@given(runs())
def test_throughput_counts_every_token_once(run: Run) -> None:
    summary = build_result(run.record).summary
    trace = run.record.trace
    output = sum(len(times) for times in run.token_times.values())
    prompt = sum(int(trace.prompt_tokens[request]) for request in run.token_times)
    assert (summary["output_tokens"], summary["prompt_tokens"]) == (output, prompt)
    makespan = summary["makespan_s"]
    whole = summary["throughput"]["whole"]
    if makespan is None:
        assert whole["output_tokens_per_s"] is None
        return
    assert whole["output_tokens_per_s"] == output / makespan
    assert whole["total_tokens_per_s"] == (prompt + output) / makespan
    if summary["steady_window_s"] is not None:
        low, high = summary["steady_window_s"]
        inside = sum(low < time <= high for times in run.token_times.values() for time in times)
        steady = summary["throughput"]["steady"]
        assert steady["output_tokens_per_s"] == inside / (high - low)


@given(runs())
def test_memory_is_the_mean_over_the_time_that_iterations_run(run: Run) -> None:
    summary = build_result(run.record).summary
    steps = run.record.steps
    capacity = run.record.total_blocks * run.record.block_size
    seconds = used = reserved = 0.0
    stored, free = (steps.column(name).tolist() for name in ("stored_tokens", "free_blocks"))
    for place in range(len(steps)):
        duration = steps.end[place] - steps.start[place]
        seconds += duration
        used += stored[place] * duration
        blocks = run.record.total_blocks - free[place]
        reserved += blocks * run.record.block_size * duration
        assert stored[place] <= blocks * run.record.block_size
    memory = summary["memory"]
    if not seconds:
        assert memory["used"] is None
        return
    assert memory["used"] == pytest.approx(used / seconds / capacity)
    assert memory["reserved"] == pytest.approx(reserved / seconds / capacity)
    assert memory["internal_waste"] == pytest.approx((reserved - used) / seconds / capacity)


def test_reasons_are_counted_without_their_numbers() -> None:
    trace = make_trace([0.0, 0.0, 0.0], [300, 400, 3], [1, 1, 1])
    result = build_result(serve(trace, VLLM(), lambda _: 1.0).record)
    (reason, count), *others = result.summary["requests"]["rejected_by_reason"].items()
    assert count == 2
    assert not others
    assert "N tokens" in reason
    assert result.requests_table["reason"].to_pylist()[2] is None


def test_a_run_that_saw_nothing_still_has_a_summary() -> None:
    trace = make_trace([0.0, 1.0], [1, 1], [1, 1])
    record = RunRecord(trace, RequestLog(), StepLog(), TokenLog(), 4, 4, 0.0, interrupted="Ctrl-C")
    result = build_result(record)
    assert result.summary["requests"][Status.UNFINISHED] == 2
    assert result.summary["interrupted"] == "Ctrl-C"
    assert result.summary["makespan_s"] is None
