"""The decision log equals vLLM's records; the timeline's tracks never overlap."""

import gzip
import io
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from rich.console import Console

from schedsim.memory import MemoryUse, PagedKVCache
from schedsim.request import Request
from schedsim.results import DecisionWriter, RunDirectory, StepLog, TimelineWriter, build_result
from schedsim.results.columns import StepColumns
from schedsim.results.step_log import DEVICE_COLUMNS, MEMORY_COLUMNS, ONCE_A_RUN, TIME_COLUMNS
from schedsim.results.table import render_table
from schedsim.results.tables import steps_table
from schedsim.scheduler import Batch, Scheduler, Step
from tests.results.runs import VLLM, Run, make_trace, runs, serve


def replay(path: Path, writer: DecisionWriter) -> list[dict[str, Any]]:
    """Drive the scheduler through an oracle case; returns the oracle's records."""
    meta, *records = [json.loads(line) for line in path.read_text().splitlines()]
    meta = meta["meta"]
    scheduler = Scheduler(
        VLLM(whole_sequence=meta["scheduler_reserve_full_isl"], watermark=meta["watermark"]),
        PagedKVCache(meta["num_blocks"], meta["block_size"]),
        max_seqs=meta["max_num_seqs"],
        token_budget=meta["max_num_batched_tokens"],
        max_model_len=meta["max_model_len"],
    )
    described = {request["id"]: request for request in meta["requests"]}
    for number, record in enumerate(records):
        arrived = []
        for name in record["arrived"]:
            given = described[name]
            output = given["output_len"]
            request = Request(int(name[1:]), float(number), given["prompt_len"], output)
            assert scheduler.add(request, output, float(number))
            arrived.append(request)
        batch = scheduler.schedule(float(number))
        writer.scheduled(scheduler, batch, arrived)
        end = number + 1.0
        writer.completed(scheduler, scheduler.complete(batch, end), float(number), end)
    return records


@pytest.mark.parametrize(
    "case", ["c1_chunked_mix", "c2_heavy_preemption", "c3_first_chunk_admission"]
)
def test_the_decision_log_is_the_oracle_s(case: str, shared_oracles: Path, tmp_path: Path) -> None:
    path = shared_oracles / "vllm_scheduler" / "cases" / f"{case}.jsonl"
    writer = DecisionWriter(RunDirectory.create(tmp_path, {}), {"name": case})
    expected = replay(path, writer)
    writer.close()
    text = gzip.decompress((tmp_path / "decisions.jsonl.gz").read_bytes()).decode()
    meta, *records = [json.loads(line) for line in text.splitlines()]
    assert meta == {"meta": {"name": case}}
    for record, wanted in zip(records, expected, strict=True):
        order = [key for key in wanted if key != "idle_skip"]
        assert list(record) == order
        record["step"] = wanted["step"]  # the oracle's clock also counts idle steps
        assert record == {key: wanted[key] for key in order}


def timeline(path: Path) -> list[dict[str, Any]]:
    content = json.loads(gzip.decompress((path / "timeline.json.gz").read_bytes()))
    events: list[dict[str, Any]] = content["traceEvents"]
    return events


def nanoseconds(value: float) -> int:
    return round(value * 1000)


def check_timeline(events: list[dict[str, Any]], run: Run) -> None:
    tracks = defaultdict(list)
    for event in events:
        if event["ph"] == "X":
            assert event["dur"] > 0 or event["pid"] == 1
            tracks[event["pid"], event["tid"]].append(event)
    for slices in tracks.values():
        reach = 0
        for event in slices:
            assert nanoseconds(event["ts"]) >= reach
            reach = nanoseconds(event["ts"]) + nanoseconds(event["dur"])
    assert len(tracks.pop((1, 0), [])) == len(run.record.steps)
    requests = {request.id: request for request in run.record.released_requests()}
    for (_, track), slices in tracks.items():
        request = requests[track]
        phases = [event["name"] for event in slices]
        assert phases.count("preempted") <= request.preemptions
        if request.status == "finished":
            spent = sum(nanoseconds(event["dur"]) for event in slices)
            assert spent == pytest.approx((request.finished - request.arrival) * 1e9, abs=2)
            times = run.token_times[track]
            if request.preemptions == 0 and len(times) > 1:
                assert phases[-2:] == ["prefill", "decode"]
                assert nanoseconds(slices[-1]["ts"]) == round(request.first_token * 1e9)


def test_a_request_s_slices_follow_each_other_from_arrival_to_end(tmp_path: Path) -> None:
    for seed in range(30):
        generator = np.random.default_rng(seed)
        count = 12
        trace = make_trace(
            list(np.cumsum(generator.integers(0, 3, count) * 0.25)),
            list(generator.integers(1, 40, count)),
            list(generator.integers(1, 30, count)),
        )
        directory = RunDirectory.create(tmp_path / str(seed), {})
        writer = TimelineWriter(directory)
        stop_after = None if seed % 3 else 20
        run = serve(trace, VLLM(), lambda row: 0.1 + row % 3 / 7, observers=(writer,),
                    stop_after=stop_after)  # fmt: skip
        writer.close()
        check_timeline(timeline(directory.path), run)


def test_the_counters_show_blocks_and_both_queues(tmp_path: Path) -> None:
    writer = TimelineWriter(RunDirectory.create(tmp_path, {}))
    trace = make_trace([0.0, 0.0], [8, 8], [3, 3])
    serve(trace, VLLM(), lambda _: 0.5, observers=(writer,), seats=1)
    writer.close()
    counters = defaultdict(list)
    for event in timeline(tmp_path):
        if event["ph"] == "C":
            counters[event["name"]].append(event["args"]["value"])
    assert counters["free blocks"] == [18, 17, 17, 18, 17, 17]
    assert counters["running"] == [1] * 6
    assert counters["waiting"] == [1, 1, 1, 0, 0, 0]


class Rejects(VLLM):
    """Rejects request 1 as iteration 3 is planned, request 2 as iteration 4 ended."""

    def schedule(self, step: Step) -> None:
        self._reject(step, step.iteration == 3, 1)
        super().schedule(step)

    def on_tokens(self, request: Request, count: int, step: Step) -> None:
        self._reject(step, step.iteration == 5, 2)  # the next to be planned

    def _reject(self, step: Step, is_time: bool, wanted: int) -> None:
        for request in list(step.waiting) if is_time else ():
            if request.id == wanted:
                step.reject(request, "told to")


def test_a_request_rejected_in_line_has_a_slice_up_to_then(tmp_path: Path) -> None:
    writer = TimelineWriter(RunDirectory.create(tmp_path, {}))
    trace = make_trace([0.0] * 4, [8] * 4, [12, 3, 3, 3])
    run = serve(trace, Rejects(), lambda _: 0.5, observers=(writer,), seats=1)
    writer.close()
    events = timeline(tmp_path)
    check_timeline(events, run)
    queued = {
        event["tid"]: (event["ts"], event["dur"], event.get("args"))
        for event in events
        if event.get("name") == "queued"
    }
    assert [request.status for request in run.record.released_requests()] == [
        "finished", "rejected", "rejected", "finished",
    ]  # fmt: skip
    assert queued[1] == (0, 1.5e6, {"status": "rejected"})
    assert queued[2] == (0, 2.5e6, {"status": "rejected"})
    assert queued[3][2] is None


def test_rows_added_together_are_those_added_one_by_one() -> None:
    """Between others, and before more are appended."""
    batch = Batch(
        decode_requests=3,
        decode_context=30,
        longest_context=14,
        padding_requests=2,
        padding_context=9,
        sampled=3,
    )
    alone = Batch(prefill_requests=1, prefill_tokens=7, prefill_attention=24.5, sampled=1)
    together, apart = StepLog(), StepLog()
    ends = np.array([1.5, 2.5, 4.0])
    for log in (together, apart):
        log.append(alone, 0.0, 0.5, 3, 4, 1, 90, 7)
    together.append_ahead(batch, ends - 1, ends - 0.75, ends, 3, 5, 1, 80, 40)
    for row, end in enumerate(ends.tolist()):
        contexts = {"decode_context": 30 + 3 * row, "longest_context": 14 + row}
        one = replace(batch, decided_at=end - 1, **contexts)
        apart.append(one, end - 0.75, end, 3, 5, 1, 80, 40 + 3 * row)
    for again in range(2):
        names = (*TIME_COLUMNS, *ONCE_A_RUN)
        for name in names:
            assert together.column(name).tolist() == apart.column(name).tolist(), name
        for log in (together, apart):
            log.append(alone, 9.0 + again, 9.5 + again, 3, 4, 1, 90, 7)


def test_the_step_log_keeps_what_is_appended() -> None:
    log = StepLog()
    assert (len(log), log.column("end").dtype) == (0, np.float64)
    request = Request(0, 0.0, 5, 5)
    batch = Batch(
        prefill_requests=1,
        prefill_tokens=2,
        prefill_context=3,
        prefill_attention=4.5,
        prefill_longest=17,
        decode_requests=5,
        decode_context=11,
        longest_context=4,
        padding_requests=7,
        padding_context=8,
        sampled=9,
        swapped_blocks=10,
        copied_blocks=11,
        decided_at=0.5,
        preempted=[request, request],
    )
    log.note_idle_look(0.25, 0)
    log.note_idle_look(0.375, 0)
    log.append(batch, 1.0, 2.0, 12, 13, 14, 15, 16)
    log.append(Batch(decided_at=2.5), 3.0, 4.0, -1, 0, 0, 0, 0)
    log.note_idle_look(5.0, 2)
    assert len(log) == 2
    names = (*TIME_COLUMNS, *ONCE_A_RUN)
    assert {name: log.column(name)[0] for name in names} == {
        "decided_at": 0.5,
        "start": 1.0,
        "end": 2.0,
        "last_arrival_seen": 12,
        "prefill_requests": 1,
        "prefill_tokens": 2,
        "prefill_context": 3,
        "prefill_attention": 4.5,
        "prefill_longest": 17,
        "decode_requests": 5,
        "context_tokens": 6,
        "longest_context": 4,
        "padding_requests": 7,
        "padding_context": 8,
        "sampled": 9,
        "swapped_blocks": 10,
        "copied_blocks": 11,
        "running": 13,
        "waiting": 14,
        "free_blocks": 15,
        "stored_tokens": 16,
        "preempted": 2,
    }
    table = steps_table(StepColumns.from_log(log), 0)
    assert table["idle_looks"].to_pylist() == [[0.25, 0.375], []]
    assert not set(DEVICE_COLUMNS) & set(table.column_names)
    assert [table[name].to_pylist() for name in MEMORY_COLUMNS] == [[0, 0]] * 3
    log.note_memory(MemoryUse(9, 8, 7, 6, 5))
    log.note_memory(MemoryUse(1, 2, 3, 4, 7))
    table = steps_table(StepColumns.from_log(log), 0)
    assert [table[name].to_pylist() for name in MEMORY_COLUMNS] == [[8, 2], [6, 4], [5, 2]]
    log.note_device(0.1, 0.2, 0.3)
    log.note_device(0.4, 0.5, 0.6)
    table = steps_table(StepColumns.from_log(log), 0)
    assert [table[name].to_pylist() for name in DEVICE_COLUMNS] == [
        [0.1, 0.4],
        [0.2, 0.5],
        [0.3, 0.6],
    ]


@given(runs())
def test_the_table_shows_any_run(run: Run) -> None:
    result = build_result(run.record)
    console = Console(width=120, file=io.StringIO())
    with console.capture() as shown:
        console.print(render_table({"vllm": result, "again": result}))
    finished = result.summary["requests"]["finished"]
    line = next(line for line in shown.get().splitlines() if line.startswith("requests finished"))
    assert line.split()[-1] == line.split()[-3] == str(finished)
