"""Decisions of two runs: equal ones differ in nothing, others from the right iteration on."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.experiments.validation.divergence import divergence_of
from schedsim.request import Request
from schedsim.results.decision_file import DecisionFile
from schedsim.results.difference import compare_decisions
from schedsim.results.directory import RunDirectory
from schedsim.results.stored_run import load_table
from schedsim.results.trail import TRAIL, Events, Trail, TrailWriter, of_sizes, trail_of
from schedsim.scheduler.batch import Batch, Chunk, Completion, Transfer, TransferKind
from tests.validation.runs import settings, small_trace, stored

POLICIES = ("vllm", "sarathi,chunk_size=64", "srtf", "static", "vllm-v0")


@st.composite
def trails(draw: st.DrawFn) -> Trail:
    """Any trail: digests, and events at ascending iterations."""
    size = draw(st.integers(0, 12))
    digests = draw(st.lists(st.integers(0, 3), min_size=size, max_size=size))

    def events() -> Events:
        places = draw(st.lists(st.integers(0, max(size - 1, 0)), max_size=8)) if size else []
        ids = draw(st.lists(st.integers(0, 5), min_size=len(places), max_size=len(places)))
        return Events(np.array(sorted(places), dtype=np.int64), np.array(ids, dtype=np.int64))

    return Trail("trail", np.array(digests, dtype=np.int64), events(), events())


@given(trails())
def test_equal_records_do_not_diverge(trail: Trail) -> None:
    found = divergence_of(trail, trail)
    assert found.same
    assert found.first_difference is None
    assert found.admissions.in_both in (1.0, None)
    assert found.admissions.in_same_iteration in (1.0, None)
    assert found.victims is not None
    assert found.victims.in_both in (1.0, None)
    assert found.order in (1.0, None)


@given(trails(), trails())
def test_shares_are_shares_and_do_not_depend_on_the_side(one: Trail, other: Trail) -> None:
    there, back = divergence_of(one, other), divergence_of(other, one)
    assert there.first_difference == back.first_difference
    for a, b in ((there.admissions, back.admissions), (there.victims, back.victims)):
        assert a is not None
        assert b is not None
        assert (a.in_both, a.in_same_iteration) == (b.in_both, b.in_same_iteration)
        if a.in_both is not None:
            assert a.in_same_iteration is not None
            assert 0.0 <= a.in_same_iteration <= a.in_both <= 1.0


def test_events_are_told_apart_by_how_often_they_happened() -> None:
    digests = np.zeros(4, dtype=np.int64)
    none = Events(np.array([], dtype=np.int64), np.array([], dtype=np.int64))
    one = Trail("trail", digests, Events(np.array([0, 1, 2]), np.array([7, 8, 7])), none)
    other = Trail("trail", digests, Events(np.array([0, 2]), np.array([7, 8])), none)
    found = divergence_of(one, other)
    assert (found.admissions.measured, found.admissions.simulated) == (3, 2)
    assert found.admissions.in_both == pytest.approx(2 / 3)
    assert found.admissions.in_same_iteration == pytest.approx(1 / 3)
    assert found.victims is not None
    assert found.victims.in_both is None


@pytest.mark.parametrize("policy", POLICIES)
def test_the_trail_says_what_the_decision_record_says(policy: str, tmp_path: Path) -> None:
    chosen = settings(policy=policy, memory="paged,host_blocks=20" if policy == "srtf" else None)
    trace = small_trace()
    full = stored(tmp_path / "full", trace, chosen, decisions=True, trail=False)
    brief = stored(tmp_path / "brief", trace, chosen)
    record, trail = trail_of(full), trail_of(brief)
    assert (record.source, trail.source) == ("decisions", "trail")
    assert len(record) == len(trail) == full.steps.num_rows
    assert trail.preempted == record.preempted
    assert sorted(zip(*trail.admitted, strict=True)) == sorted(zip(*record.admitted, strict=True))
    first = {r: i for i, r in reversed(list(zip(*trail.admitted, strict=True)))}
    by_tables = of_sizes(brief).admitted
    assert dict(zip(by_tables.request.tolist(), by_tables.iteration.tolist(), strict=True)) == first


@pytest.mark.parametrize("other", [{"blocks": 27}, {"policy": "sarathi,chunk_size=64"}])
def test_trails_part_where_the_decision_records_do(
    other: dict[str, object], tmp_path: Path
) -> None:
    trace = small_trace()
    runs = [
        stored(tmp_path / name, trace, settings(**given), decisions=True)
        for name, given in (("one", {}), ("other", other))
    ]
    compared = compare_decisions(*(DecisionFile(run.path) for run in runs))
    assert not compared.same
    for run in runs:
        (run.path / "decisions.jsonl.gz").unlink()
    one, two = (trail_of(run) for run in runs)
    differs = one.first_difference(two)
    assert differs is not None
    # The record also has the free blocks, which another cache size changes from the first line on.
    assert differs >= compared.iterations
    if "policy" in other:
        assert differs == compared.iterations


def test_other_blocks_for_the_same_batches_are_another_decision(tmp_path: Path) -> None:
    """With room for all, a cache that keeps prefixes gives out blocks in another order."""
    trace = small_trace()
    one, other = (
        stored(tmp_path / name, trace, settings(blocks=400, memory=memory))
        for name, memory in (("one", "paged"), ("other", "paged,prefix_caching=true"))
    )
    assert of_sizes(one).first_difference(of_sizes(other)) is None
    assert trail_of(one).first_difference(trail_of(other)) is not None


def digest(folder: Path, batch: Batch, tables: dict[int, list[int]]) -> int:
    """Of one iteration, as it stands in the file."""
    kv_cache = SimpleNamespace(block_table=lambda request: tables[request.id])
    scheduler: Any = SimpleNamespace(kv_cache=kv_cache)
    writer = TrailWriter(RunDirectory.create(folder, {}))
    writer.scheduled(scheduler, batch, [])
    writer.completed(scheduler, Completion(batch, []), 0.0, 1.0)
    writer.close()
    (found,) = load_table(folder / TRAIL).column("digest").to_pylist()
    return int(found)


def test_a_digest_is_of_everything_that_was_decided(tmp_path: Path) -> None:
    one, other = Request(1, 0.0, 8, 8), Request(2, 0.0, 8, 8)
    one.order, other.order = 0, 1
    chunks = [Chunk(one, 4, 0), Chunk(other, 4, 0)]
    tables = {1: [5, 6], 2: [7]}
    batches: list[tuple[Batch, dict[int, list[int]]]] = [
        (Batch(prefills=chunks), tables),
        (Batch(prefills=chunks), {1: [5], 2: [6, 7]}),
        (Batch(prefills=[Chunk(one, 3, 0), chunks[1]]), tables),
        (Batch(prefills=[Chunk(one, 4, 1), chunks[1]]), tables),
        (Batch(prefills=chunks[:1]), tables),
        (Batch(prefills=chunks[:1], preempted=[other]), tables),
    ]
    batches += [
        (Batch(prefills=chunks, transfers=[Transfer(one, kind, pairs)]), tables)
        for kind in TransferKind
        for pairs in ([(0, 1)], [(0, 2)])
    ]
    digests = [digest(tmp_path / str(i), *pair) for i, pair in enumerate(batches)]
    assert len(set(digests)) == len(digests)
    assert digest(tmp_path / "again", *batches[0]) == digests[0]
