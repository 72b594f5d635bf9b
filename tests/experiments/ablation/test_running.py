"""A small ablation from end to end: what holds in every one, and what it writes."""

import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

import schedsim
from schedsim.errors import ConfigError
from schedsim.experiments.ablation.burst import Cells, fill_cell
from schedsim.experiments.ablation.capacity import LEAST_REQUESTS, Capacities
from schedsim.experiments.ablation.cells import (
    CONTINUOUS,
    EXACT,
    KERNELS,
    MAXIMUM,
    MEMORIES,
    NAIVE,
    PAGED,
    SCHEDULINGS,
    STATIC,
    Cell,
    own_kernel,
)
from schedsim.experiments.ablation.notes import notes_on_capacities
from schedsim.experiments.ablation.running import Ablated, ablate, prepare
from schedsim.experiments.ablation.serving import mean_log_rate
from schedsim.experiments.ablation.setup import Workload
from schedsim.traces import write_trace
from tests.cli.commands import manifest, names
from tests.experiments.ablation.small import SMALL, prepared

READY = prepared()


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ablation") / "out"


@pytest.fixture(scope="module")
def ran(written: Path) -> Ablated:
    return ablate(READY, out=written, command=["schedsim", "ablate"])


def test_tuned_static_is_never_below_naive_static(ran: Ablated) -> None:
    for memory in MEMORIES:
        for kernel in KERNELS:
            naive, tuned = (
                mean_log_rate(ran.cells[Cell(scheduling, memory, kernel)].runs)
                for scheduling in (NAIVE, STATIC)
            )
            assert tuned >= naive
    assert any(
        ran.cells[own_kernel(STATIC, m)].candidate != ran.cells[own_kernel(NAIVE, m)].candidate
        for m in MEMORIES
    )


def test_the_best_candidate_of_every_cell_is_kept(ran: Ablated) -> None:
    for filled in ran.cells.values():
        best = max(map(mean_log_rate, filled.tried.values()))
        assert mean_log_rate(filled.runs) == best
    for scheduling in SCHEDULINGS:  # whatever the batching, every manager has its chance
        for memory in MEMORIES:
            filled = ran.cells[own_kernel(scheduling, memory)]
            size = filled.candidate.batch_size
            assert {c.manager for c in filled.tried if c.batch_size == size} == set(memory.managers)


def test_every_cell_serves_the_same_requests(ran: Ablated) -> None:
    for filled in ran.cells.values():
        for runs in filled.tried.values():
            assert [run.finished for run in runs] == [len(draw) for draw in READY.draws]
            assert all(run.not_served == 0 for run in runs)
            for run in runs:
                rate = run.output_tokens_per_s * run.makespan_s
                assert rate == pytest.approx(round(rate), abs=1e-6), "all tokens over the makespan"


def test_the_factors_multiply_to_the_ratio_of_the_ends(ran: Ablated) -> None:
    (burst,) = ran.answers
    naive, tuned = burst.factors
    for factors in (naive, tuned):
        ends = [mean_log_rate(ran.cells[cell].runs) for cell in (factors.first, factors.last)]
        assert math.log(factors.whole.value) == pytest.approx(ends[1] - ends[0])
        product = math.prod(change.factor.value for change in factors.changes)
        assert product == pytest.approx(factors.whole.value)


def test_slots_are_accounted_for_and_reservations_waste_what_paging_does_not(
    ran: Ablated,
) -> None:
    tokens = {}
    for memory in MEMORIES:
        for scheduling in (STATIC, CONTINUOUS):
            for run in ran.cells[own_kernel(scheduling, memory)].runs:
                use = run.use
                assert use is not None
                shares = (
                    use.tokens, use.ended, use.reserved, use.internal, use.external, use.free,
                )  # fmt: skip
                assert sum(shares) == pytest.approx(1.0)
                assert min(shares) > -1e-12
                assert (use.ended > 0) == (scheduling is STATIC)
                tokens[scheduling, memory] = use.tokens
    assert tokens[CONTINUOUS, MAXIMUM] < tokens[CONTINUOUS, EXACT] < tokens[CONTINUOUS, PAGED]
    moved = [run.moved_tokens for run in ran.cells[own_kernel(CONTINUOUS, PAGED)].runs]
    assert moved == [0, 0]


def test_the_contiguous_kernel_is_never_slower_in_the_same_system(ran: Ablated) -> None:
    for memory in MEMORIES:
        contiguous, paged = (
            mean_log_rate(ran.cells[Cell(CONTINUOUS, memory, kernel)].runs) for kernel in KERNELS
        )
        assert contiguous > paged


def test_equal_runs_write_equal_files(tmp_path: Path, ran: Ablated, written: Path) -> None:
    told: list[None] = []
    again = tmp_path / "again"
    ablate(READY, out=again, command=["schedsim", "ablate"], progress=lambda: told.append(None))
    assert len(told) == READY.size == 50
    assert names(again) == {"manifest.json", "cells.parquet", "factors.parquet"}
    for name in ("cells.parquet", "factors.parquet"):
        assert (again / name).read_bytes() == (written / name).read_bytes()


def test_the_files_hold_every_run_and_every_factor(ran: Ablated, written: Path) -> None:
    cells = pd.read_parquet(written / "cells.parquet")
    chosen = cells[cells["chosen"]]
    assert len(chosen) == 50 * SMALL.repeats
    assert chosen["counterfactual"].sum() == 5 * SMALL.repeats
    assert set(cells["seed"]) == {0, 1}
    factors = pd.read_parquet(written / "factors.parquet")
    assert (factors["kind"] == "change").sum() == 5 + 4
    whole = factors[factors["kind"] == "whole"]["factor"].tolist()
    assert whole == [factors_.whole.value for factors_ in ran.answers[0].factors]
    told = manifest(written)
    assert told["complete"] is True
    assert told["pool"]["blocks"] == 120
    assert told["pool"]["kv_bytes"] == 120 * 16 * 131072
    assert told["kernels"]["paged"].startswith("roofline,")


def test_what_had_been_run_is_kept_after_ctrl_c(tmp_path: Path) -> None:
    calls = []

    def interrupt() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ablate(READY, out=tmp_path / "out", progress=interrupt)
    assert names(tmp_path / "out") == {"manifest.json", "cells.parquet"}
    cells = pd.read_parquet(tmp_path / "out" / "cells.parquet")
    assert cells["chosen"].sum() == 3 * SMALL.repeats
    assert manifest(tmp_path / "out")["complete"] is False
    assert manifest(tmp_path / "out")["stopped"] == "interrupted by the user"


def test_each_repeat_draws_anew_and_the_same_seed_the_same() -> None:
    one, two = READY.draws
    assert one.output_tokens.tolist() != two.output_tokens.tolist()
    assert one.output_tokens.tolist() == prepared().draws[0].output_tokens.tolist()
    later = prepared(seed=1).draws[0]
    assert later.output_tokens.tolist() == two.output_tokens.tolist()


def test_a_file_is_drawn_from_with_replacement(tmp_path: Path) -> None:
    path = tmp_path / "trace.parquet"
    trace = schedsim.generate("azure-conv", 50, seed=9, rate=2.0)
    write_trace(trace, path)
    setup = replace(SMALL, trace=str(path), requests=200, repeats=2)
    drawn = [Workload(setup, 100_000).draw(seed) for seed in (0, 1, 0)]
    pairs = set(zip(*(c * 0.1 for c in (trace.prompt_tokens, trace.output_tokens)), strict=True))
    known = {(math.ceil(p), math.ceil(o)) for p, o in pairs}
    for draw in drawn:
        assert len(draw) == 200
        assert set(zip(draw.prompt_tokens, draw.output_tokens, strict=True)) <= known
        assert not draw.arrival.any()
    assert drawn[0].prompt_tokens.tolist() == drawn[2].prompt_tokens.tolist()
    assert drawn[0].prompt_tokens.tolist() != drawn[1].prompt_tokens.tolist()
    assert any("with replacement" in note for note in prepare(setup).notes)


def test_requests_beyond_the_context_are_left_out_of_every_cell_and_told() -> None:
    short = prepared(max_model_len=200)
    kept = sum(map(len, short.draws))
    assert 0 < kept < 48
    assert all(int((d.prompt_tokens + d.output_tokens).max()) <= 200 for d in short.draws)
    assert any(f"in every cell: {48 - kept} of the 48 requests" in note for note in short.notes)
    with pytest.raises(ConfigError, match="no request fits into a context of 2 tokens"):
        prepared(max_model_len=2)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"repeats": 0}, "--repeats 0 must be at least 1"),
        ({"requests": 0}, "--requests 0 must be at least 1"),
        ({"noise": "normal"}, "unknown predictor 'normal'"),
        ({"noise": "column"}, "--noise column: of a trace the lengths alone are drawn"),
        ({"paged_kernel": "quick"}, "unknown step-time model 'quick'"),
        ({"contiguous_kernel": "recorded:run"}, "a record is no step-time model"),
        ({"contiguous_kernel": "fitted:nowhere.json"}, "cannot read the file"),
        ({"trace": "generate:azure-comv"}, "unknown preset 'azure-comv'"),
    ],
)
def test_a_wrong_setup_is_refused_before_anything_runs(
    changes: dict[str, object], told: str
) -> None:
    with pytest.raises(ConfigError, match=told):
        prepare(replace(SMALL, **changes))  # type: ignore[arg-type]


def test_a_pool_that_does_not_hold_the_longest_context_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not hold one request of the longest context, 3000"):
        prepared(max_model_len=3000)


def test_capacity_is_where_nine_of_ten_meet_their_targets() -> None:
    ready = prepared(slo_ttft=0.5, slo_tpot=0.05)
    one = replace(ready, setup=replace(ready.setup, repeats=1), draws=ready.draws[:1])
    cells: Cells = {}
    for cell in (own_kernel(NAIVE, MAXIMUM), own_kernel(CONTINUOUS, PAGED)):
        cells[cell] = fill_cell(one.setup, one.pool, one.draws, cell, cells)
    searched = Capacities(one.setup, one.pool, one.draws, cells)
    naive, continuous = own_kernel(NAIVE, MAXIMUM), own_kernel(CONTINUOUS, PAGED)
    (low,), (high,) = searched.of(naive).rates, searched.of(continuous).rates
    assert low is not None
    assert high is not None
    assert low < high
    candidate = cells[continuous].candidate
    assert searched._share(continuous, candidate, 0, high) >= 0.9
    assert searched._share(continuous, candidate, 0, 1.06 * high) < 0.9
    assert len(searched._as_many(one.draws[0], 1.0, 0)) == LEAST_REQUESTS
    assert len(searched._as_many(one.draws[0], 100.0, 0)) == 1000
    hasty = replace(one.setup, engine=one.setup.engine.model_copy(update={"slo_ttft": 1e-6}))
    assert Capacities(hasty, one.pool, one.draws, cells).of(continuous).rates == [None]


def test_a_capacity_beyond_the_highest_rate_tried_is_told_as_a_bound() -> None:
    ready = prepared(slo_tpot=60.0)  # which everybody meets at any rate
    cell = own_kernel(CONTINUOUS, PAGED)
    cells = {cell: fill_cell(ready.setup, ready.pool, ready.draws, cell, {})}
    found = {cell: Capacities(ready.setup, ready.pool, ready.draws, cells).of(cell)}
    (note,) = notes_on_capacities(cells, found)
    assert str(cell) in note
    borne = found[cell]._replace(rates=[1.0, 1.0])
    assert notes_on_capacities(cells, {cell: borne}) == []


def test_a_paged_kernel_measured_with_other_blocks_is_told() -> None:
    (note,) = [note for note in prepared(block_size=32).notes if "blocks of 16 tokens" in note]
    assert note.endswith("not of 32")
    assert not any("blocks of 16 tokens" in note for note in READY.notes)
