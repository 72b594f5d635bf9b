"""Two decision records: the same, or the first iteration and field in which they part."""

import copy
import gzip
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.errors import ResultError
from schedsim.results.decision_file import DecisionFile
from schedsim.results.difference import Comparison, compare_decisions

META = {"policy": "fcfs", "num_blocks": 8}


def record(step: int) -> dict[str, Any]:
    return {
        "step": step,
        "arrived": [],
        "scheduled": [["r0", 1, "run", 5 + step], ["r1", 4, "new", 0]],
        "total_tokens": 5,
        "preempted": ["r2"],
        "free_after_schedule": 3,
        "sampled": ["r0", "r1"],
        "finished": [],
        "free_after_update": 3,
        "running": ["r0", "r1"],
        "waiting": ["r2", "r3"],
        "blocks": {"r0": [1, 2], "r1": [4]},
    }


def write(path: Path, records: list[dict[str, Any]], meta: dict[str, Any] | None = None) -> Path:
    lines = [{"meta": meta or META}, *records]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def compare(folder: Path, first: list[Any], second: list[Any], **meta: Any) -> Comparison:
    one = DecisionFile(write(folder / "a.jsonl", first))
    other = DecisionFile(write(folder / "b.jsonl", second, {**META, **meta}))
    return compare_decisions(one, other)


def test_equal_records_are_counted(tmp_path: Path) -> None:
    found = compare(tmp_path, [record(0), record(1)], [record(0), record(1)])
    assert found.same
    assert (found.iterations, found.scheduled, found.preemptions) == (2, 4, 2)
    assert found.settings == []


CHANGES: list[tuple[str, Any, tuple[str, str, str]]] = [
    ("step", 9, ("step", "2", "9")),
    ("free_after_update", 7, ("free_after_update", "3", "7")),
    ("waiting", ["r3", "r2"], ("waiting", "r2 r3", "r3 r2")),
    ("preempted", [], ("preempted", "r2", "nothing")),
    ("blocks", {"r0": [1, 2], "r1": [5]}, ("blocks r1", "4", "5")),
    ("blocks", {"r0": [1, 2]}, ("blocks r1", "4", "-")),
    (
        "scheduled",
        [["r0", 1, "run", 7], ["r1", 2, "new", 0]],
        ("scheduled r1", "4 tokens after 0, new", "2 tokens after 0, new"),
    ),
    ("scheduled", [["r0", 1, "run", 7]], ("scheduled r1", "4 tokens after 0, new", "-")),
    (
        "scheduled",
        [["r1", 4, "new", 0], ["r0", 1, "run", 7]],
        ("scheduled, in order", "r0 r1", "r1 r0"),
    ),
]


@pytest.mark.parametrize(("field", "value", "row"), CHANGES)
def test_a_field_that_differs_stands_side_by_side(
    tmp_path: Path, field: str, value: Any, row: tuple[str, str, str]
) -> None:
    first = [record(step) for step in range(4)]
    second = copy.deepcopy(first)
    second[2][field] = value
    found = compare(tmp_path, first, second)
    assert found.difference is not None
    assert found.difference.iteration == found.iterations == 2
    assert found.difference.rows == [row]
    assert [line[:6] for line in found.difference.before] == ["step 0", "step 1"]


@given(length=st.integers(0, 4), other=st.integers(0, 4))
def test_a_record_that_ends_earlier_differs(
    tmp_path_factory: pytest.TempPathFactory, length: int, other: int
) -> None:
    records = [record(step) for step in range(4)]
    found = compare(tmp_path_factory.mktemp("ends"), records[:length], records[:other])
    assert found.same is (length == other)
    assert found.iterations == min(length, other)
    if found.difference is not None:
        (row,) = found.difference.rows
        assert (row.first if length < other else row.second) == "the record has ended"


def test_long_lists_are_shown_from_where_they_part(tmp_path: Path) -> None:
    first, second = record(0), record(0)
    first["blocks"]["r0"] = list(range(100, 200))
    second["blocks"]["r0"] = [*range(100, 150), 7, *range(151, 200)]
    found = compare(tmp_path, [first], [second])
    assert found.difference is not None
    (row,) = found.difference.rows
    assert row.first.startswith("… from place 48: 148 149 150 151")
    assert row.second.startswith("… from place 48: 148 149 7 151")
    assert row.second.endswith("… (40 more)")


def test_settings_that_differ_change_no_verdict(tmp_path: Path) -> None:
    found = compare(tmp_path, [record(0)], [record(0)], num_blocks=9)
    assert found.same
    assert found.settings == [("num_blocks", "8", "9")]


def test_a_field_that_one_record_lacks_counts_as_null(tmp_path: Path) -> None:
    second = {**record(0), "update_of": None}
    assert compare(tmp_path, [record(0)], [second]).same
    assert not compare(tmp_path, [record(0)], [{**second, "update_of": 0}]).same


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_every_recorded_case_equals_itself_and_no_other(
    suffix: str, shared_oracles: Path, tmp_path: Path
) -> None:
    cases = sorted((shared_oracles / "vllm_scheduler" / "cases").glob("*[!e].jsonl"))
    assert len(cases) > 10
    for case, following in zip(cases, [*cases[1:], cases[0]], strict=True):
        path = tmp_path / f"{case.stem}{suffix}"
        text = case.read_bytes()
        path.write_bytes(gzip.compress(text) if suffix.endswith("gz") else text)
        assert compare_decisions(DecisionFile(case), DecisionFile(path)).same
        assert not compare_decisions(DecisionFile(path), DecisionFile(following)).same


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 3: no JSON"),
        ("[1, 2]", "line 3: a list, not an object"),
        ('{"step": 1}', "line 3: 'scheduled' is missing"),
        (json.dumps({**record(1), "scheduled": [["r0"]]}), "line 3: 'scheduled' is missing or not"),
        (json.dumps({**record(1), "blocks": {"r0": 5}}), "line 3: 'blocks' is missing or not"),
        (json.dumps({**record(1), "waiting": 5}), "line 3: 'waiting' is missing or not"),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path: Path, line: str, message: str) -> None:
    good = write(tmp_path / "good.jsonl", [record(0), record(1)])
    bad = write(tmp_path / "bad.jsonl", [record(0)])
    bad.write_text(bad.read_text() + line + "\n")
    for pair in ((good, bad), (bad, good)):
        with pytest.raises(ResultError) as caught:
            compare_decisions(*map(DecisionFile, pair))
        assert f"{bad}, {message}" in str(caught.value)
