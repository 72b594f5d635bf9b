"""Transforms keep the trace's rules, its books and its links; files give back what was written."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from schedsim.errors import ConfigError, OutputError, TraceError
from schedsim.traces import Trace, read_trace, write_trace
from schedsim.traces import transforms as change
from schedsim.traces.token_scaling import scale_tokens
from schedsim.traces.trace import PromptBlocks, TraceSource
from tests.traces.strategies import traces


def small_trace(**columns: object) -> Trace:
    fields: dict[str, object] = {
        "arrival": np.array([0.0, 1.0, 2.0, 3.0]),
        "prompt_tokens": np.array([10, 20, 30, 40], dtype=np.int32),
        "output_tokens": np.array([1, 2, 3, 4], dtype=np.int32),
        "source": TraceSource("small", "test", rows_read=4),
        **columns,
    }
    return Trace(**fields)  # type: ignore[arg-type]


def one_session(arrival: list[float]) -> Trace:
    return small_trace(
        arrival=np.array(arrival, dtype=np.float64),
        session=np.zeros(4, dtype=np.int64),
        parent=np.array([-1, 0, 1, 2]),
        think_s=np.array([0.0, 0.5, 0.25, 0.125]),
    )


def assert_equal(first: Trace, second: Trace) -> None:
    assert first.columns().keys() == second.columns().keys()
    for name, values in first.columns().items():
        assert values.dtype == second.columns()[name].dtype
        np.testing.assert_array_equal(values, second.columns()[name])
    assert first.has_arrivals == second.has_arrivals
    assert first.tenant_names == second.tenant_names
    assert (first.blocks is None) == (second.blocks is None)
    if first.blocks is not None and second.blocks is not None:
        assert first.blocks.block_size == second.blocks.block_size
        np.testing.assert_array_equal(first.blocks.offsets, second.blocks.offsets)
        np.testing.assert_array_equal(first.blocks.ids, second.blocks.ids)


def check_books(trace: Trace) -> None:
    assert trace.source.rows_read == len(trace) + sum(trace.source.dropped.values())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("own")


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".jsonl.gz"])
@given(trace=traces(), timed=st.booleans())
def test_own_files_give_back_what_was_written(
    folder: Path, suffix: str, trace: Trace, timed: bool
) -> None:
    trace = dataclasses.replace(trace, has_arrivals=timed)
    path = folder / f"trace{suffix}"
    write_trace(trace, path)
    back = read_trace(path)
    assert_equal(trace, back)
    for name in ("rows_read", "notes", "start_ns"):
        assert getattr(back.source, name) == getattr(trace.source, name)
    assert dict(back.source.dropped) == dict(trace.source.dropped)
    assert back.source.name == path.name
    assert back.source.sha256 is not None
    assert back.source.origin == "random (test)"
    first = path.read_bytes()
    write_trace(back, path)
    assert path.read_bytes() == first
    assert [entry.name for entry in folder.iterdir() if entry.name.endswith(".part")] == []


def test_writing_refuses_what_it_cannot_do(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="suffix"):
        write_trace(small_trace(), tmp_path / "trace.csv")
    with pytest.raises(OutputError, match="cannot be written"):
        write_trace(small_trace(), tmp_path / "absent" / "trace.parquet")
    assert list(tmp_path.iterdir()) == []


SELECTIONS: dict[str, Callable[[Trace], Trace]] = {
    "limit": lambda trace: change.limit(trace, 5),
    "window": lambda trace: change.window(trace, 0.01, 1.0),
    "thin": lambda trace: change.thin(trace, 0.5, np.random.default_rng(3)),
    "drop": lambda trace: change.over_context(trace, 30),
    "clip": lambda trace: change.over_context(trace, 12, how="clip"),
    "scale": lambda trace: change.scale_time(trace, 3.0),
    "tokens": lambda trace: scale_tokens(trace, 0.3),
    "overlay": lambda trace: change.overlay([trace, trace]),
}


@pytest.mark.parametrize("name", SELECTIONS)
@given(trace=traces())
def test_transforms_keep_rules_and_books(name: str, trace: Trace) -> None:
    try:
        result = SELECTIONS[name](trace)  # its constructor checks every rule
    except TraceError as error:
        assert "no request is left" in str(error)  # noqa: PT017
        assume(False)
    check_books(result)


@given(trace=traces(closed_loop=True), data=st.data())
def test_removed_parents_pass_their_children_on(trace: Trace, data: st.DataObject) -> None:
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=len(trace), max_size=len(trace))))
    assume(keep.any())
    cut = change.keep_rows(trace, keep, "chosen")
    old_rows = np.flatnonzero(keep)
    assert trace.parent is not None
    assert trace.think_s is not None
    assert cut.parent is not None
    assert cut.think_s is not None
    for row, old in enumerate(old_rows):
        ancestor, think = int(trace.parent[old]), float(trace.think_s[old])
        while ancestor >= 0 and not keep[ancestor]:
            think += float(trace.think_s[ancestor])
            ancestor = int(trace.parent[ancestor])
        if ancestor < 0:
            assert cut.parent[row] == -1
            assert cut.think_s[row] == 0
        else:
            assert old_rows[cut.parent[row]] == ancestor
            assert cut.think_s[row] == pytest.approx(think)
        assert cut.arrival[row] == trace.arrival[old]


@given(trace=traces(closed_loop=True), seed=st.integers(0, 99))
def test_thinning_keeps_sessions_whole(trace: Trace, seed: int) -> None:
    assert trace.session is not None
    try:
        thinned = change.thin(trace, 0.5, np.random.default_rng(seed))
    except TraceError:
        assume(False)
    assert thinned.session is not None
    for session in set(thinned.session.tolist()):
        assert (thinned.session == session).sum() == (trace.session == session).sum()


@given(trace=traces(), size=st.integers(2, 60))
def test_clipped_requests_fit_and_keep_their_prefix(trace: Trace, size: int) -> None:
    clipped = change.over_context(trace, size, how="clip")
    total = clipped.prompt_tokens + clipped.output_tokens
    fits = trace.prompt_tokens + trace.output_tokens <= size
    assert (total <= size).all()
    np.testing.assert_array_equal(clipped.prompt_tokens[fits], trace.prompt_tokens[fits])
    np.testing.assert_array_equal(total[~fits], size)
    if trace.blocks is not None and clipped.blocks is not None:
        for row in range(len(trace)):
            chain = clipped.blocks.ids[slice(*clipped.blocks.offsets[row : row + 2])]
            whole = trace.blocks.ids[slice(*trace.blocks.offsets[row : row + 2])]
            np.testing.assert_array_equal(chain, whole[: len(chain)])


def test_clipping_takes_the_prompt_first() -> None:
    clipped = change.over_context(small_trace(), 5, how="clip")
    assert clipped.prompt_tokens.tolist() == [4, 3, 2, 1]
    assert clipped.output_tokens.tolist() == [1, 2, 3, 4]
    tight = change.over_context(small_trace(), 3, how="clip")
    assert tight.prompt_tokens.tolist() == [2, 1, 1, 1]
    assert tight.output_tokens.tolist() == [1, 2, 2, 2]
    assert tight.source.notes == ("4 prompts and 2 outputs clipped to 3 tokens together",)


@given(trace=traces(closed_loop=True), seed=st.integers(0, 99))
def test_session_starts_move_sessions_whole(trace: Trace, seed: int) -> None:
    starts = np.random.default_rng(seed).exponential(5.0, change.session_count(trace))
    started = change.with_session_starts(trace, starts)
    check_books(started)
    assert started.has_arrivals
    assert trace.session is not None
    assert started.session is not None
    for start, session in zip(starts, np.unique(trace.session), strict=True):
        before = trace.arrival[trace.session == session]
        after = started.arrival[started.session == session]
        assert after[0] == start
        np.testing.assert_allclose(after - start, before - before[0], atol=1e-12)


def test_arrivals_and_session_starts_refuse_the_wrong_trace() -> None:
    with pytest.raises(TraceError, match="3 arrivals for the 4 requests"):
        change.with_arrivals(small_trace(), np.zeros(3))
    with pytest.raises(TraceError, match="is before the row above"):
        change.with_arrivals(small_trace(), np.array([0.0, 2.0, 1.0, 3.0]))
    with pytest.raises(TraceError, match="closed loop"):
        change.with_arrivals(one_session([0, 1, 2, 3]), np.zeros(4))
    with pytest.raises(TraceError, match="outside sessions"):
        change.with_session_starts(small_trace(), np.zeros(4))
    with pytest.raises(TraceError, match="2 starts for the 1 sessions"):
        change.with_session_starts(one_session([0, 1, 2, 3]), np.zeros(2))
    untimed = small_trace(arrival=np.zeros(4), has_arrivals=False)
    timed = change.with_arrivals(untimed, np.arange(4.0))
    assert timed.has_arrivals
    for use in (lambda t: change.window(t, 0, 1), lambda t: change.scale_time(t, 2)):
        with pytest.raises(TraceError, match="no arrival times"):
            use(untimed)


def test_window_moves_the_clock_and_frees_follow_ups() -> None:
    trace = one_session([0.0, 1.0, 2.0, 3.0])
    trace = dataclasses.replace(trace, source=dataclasses.replace(trace.source, start_ns=10**9))
    cut = change.window(trace, 0.5, 2.5)
    assert cut.arrival.tolist() == [0.5, 1.5]
    assert cut.parent is not None
    assert cut.parent.tolist() == [-1, 0]
    assert cut.source.start_ns == 1_500_000_000
    assert dict(cut.source.dropped) == {"outside the window": 2}


def test_scaling_keeps_think_times_and_distances_in_a_session() -> None:
    trace = small_trace(
        arrival=np.array([0.0, 4.0, 5.0, 8.0]),
        parent=np.array([-1, -1, 1, -1]),
        think_s=np.array([0.0, 0.0, 0.5, 0.0]),
    )
    scaled = change.scale_time(trace, 4.0)
    assert scaled.arrival.tolist() == [0.0, 1.0, 2.0, 2.0]
    assert scaled.prompt_tokens.tolist() == [10, 20, 30, 40]
    assert scaled.think_s is not None
    assert scaled.think_s.tolist() == [0.0, 0.0, 0.5, 0.0]


@given(first=traces(), second=traces())
def test_overlay_keeps_ids_apart_and_names_together(first: Trace, second: Trace) -> None:
    both = change.overlay([first, second])
    check_books(both)
    assert len(both) == len(first) + len(second)
    for name in ("prompt_tokens", "output_tokens", "arrival"):
        joined = np.concatenate([first.columns()[name], second.columns()[name]])
        np.testing.assert_array_equal(np.sort(both.columns()[name]), np.sort(joined))
    sessions = sum(change.session_count(trace) for trace in (first, second))
    assert change.session_count(both) == sessions
    parts = [trace.blocks for trace in (first, second) if trace.blocks is not None]
    if both.blocks is not None:
        assert len(np.unique(both.blocks.ids)) == sum(len(np.unique(p.ids)) for p in parts)
    if first.tenant_names and second.tenant_names:
        assert both.tenant_names == tuple(dict.fromkeys(first.tenant_names + second.tenant_names))


def test_merging_uses_the_absolute_clock(shared_traces: Path) -> None:
    paths = [
        shared_traces / f"azure-2023/AzureLLMInferenceTrace_{x}.csv.gz" for x in ["code", "conv"]
    ]
    code, conv = map(read_trace, paths)
    both = change.merge([code, conv])
    assert both.source.start_ns == conv.source.start_ns
    assert both.arrival[0] == 0
    assert both.arrival[-1] == pytest.approx(code.arrival[-1] + 77.299370, abs=1e-6)
    check_books(both)
    with pytest.raises(TraceError, match="no absolute start"):
        change.merge([code, small_trace()])


def test_overlay_refuses_what_does_not_go_together() -> None:
    chain = PromptBlocks(8, np.arange(5), np.arange(4))
    other = PromptBlocks(16, np.arange(5), np.arange(4))
    with pytest.raises(TraceError, match="differ in size"):
        change.overlay([small_trace(blocks=chain), small_trace(blocks=other)])
    limits = small_trace(max_output_tokens=np.full(4, 9, dtype=np.int32))
    with pytest.raises(TraceError, match="no column 'max_output_tokens'"):
        change.overlay([limits, small_trace()])
    with pytest.raises(TraceError, match="at least one"):
        change.overlay([])


BAD_COLUMNS: list[tuple[dict[str, object], str]] = [
    ({"arrival": np.array([0.0, 2.0, 1.0, 3.0])}, "row 2, arrival: 1.0 is before the row above"),
    ({"arrival": np.array([-1.0, 0, 1, 2])}, "row 0, arrival: -1.0 is negative"),
    ({"arrival": np.array([0.0, 1, 2, np.nan])}, "row 3, arrival: nan"),
    ({"prompt_tokens": np.array([1, 0, 1, 1], dtype=np.int32)}, "row 1, prompt_tokens: 0"),
    ({"prompt_tokens": np.array([1, 1, 1, 1])}, "'prompt_tokens' is int64, must be int32"),
    ({"output_tokens": np.array([1, 1], dtype=np.int32)}, "'output_tokens' has shape (2,)"),
    ({"tenant": np.array([0, 1, 2, 3]), "tenant_names": ("a", "b")}, "row 2, tenant: 2"),
    ({"ttft_slo": np.array([1.0, np.nan, 0.0, 1.0])}, "row 2, ttft_slo: 0.0"),
    ({"parent": np.array([-1, 0, 0, 0])}, "'parent' and 'think_s' belong together"),
    ({"parent": np.array([0, -1, -1, -1]), "think_s": np.zeros(4)}, "row 0, parent: 0 is not an"),
    (
        {
            "parent": np.array([-1, 0, -1, -1]),
            "think_s": np.zeros(4),
            "session": np.array([0, 1, 1, 1]),
        },
        "row 1, session: 1 is not the session",
    ),
    ({"blocks": PromptBlocks(8, np.array([0, 3, 3, 3, 3]), np.arange(3))}, "row 0, blocks: 3"),
    ({"blocks": PromptBlocks(8, np.array([0, 1]), np.arange(1))}, "blocks.offsets must rise"),
    ({"blocks": PromptBlocks(0, np.arange(5), np.arange(4))}, "block_size is 0"),
]


@pytest.mark.parametrize(("columns", "message"), BAD_COLUMNS, ids=range(len(BAD_COLUMNS)))
def test_trace_refuses_columns_outside_its_rules(columns: dict[str, object], message: str) -> None:
    with pytest.raises(TraceError) as caught:
        small_trace(**columns)
    assert message in str(caught.value)


def test_trace_has_at_least_one_row() -> None:
    none = np.zeros(0, dtype=np.int32)
    with pytest.raises(TraceError, match="at least one request"):
        small_trace(arrival=np.zeros(0), prompt_tokens=none, output_tokens=none)


@pytest.mark.parametrize(
    "use",
    [
        lambda trace: change.limit(trace, 0),
        lambda trace: change.window(trace, 2.0, 1.0),
        lambda trace: change.thin(trace, 1.5, np.random.default_rng(0)),
        lambda trace: change.scale_time(trace, float("nan")),
        lambda trace: change.cap_think_times(trace, -1.0),
        lambda trace: change.over_context(trace, 1),
        lambda trace: change.over_context(trace, 9, how="cut"),
    ],
)
def test_parameters_out_of_range_are_refused(use: Callable[[Trace], Trace]) -> None:
    with pytest.raises(ConfigError, match=r"must be|needs"):
        use(small_trace())
