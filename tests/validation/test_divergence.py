"""Decisions of two runs: equal ones differ in nothing, others from the right iteration on."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.experiments.validation.divergence import divergence_of
from schedsim.results.decision_file import DecisionFile
from schedsim.results.difference import compare_decisions
from schedsim.results.trail import Events, Trail, of_sizes, trail_of
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
