"""Every shipped policy still makes of the golden trace what the table says."""

from pathlib import Path

import pytest

from schedsim.policies import POLICIES
from schedsim.traces.trace import Trace
from tests.policies.golden import (
    differences,
    golden_row,
    golden_trace,
    place,
    read_places,
    read_table,
    write_places,
    write_row,
)


@pytest.fixture(scope="module")
def trace(shared_traces: Path) -> Trace:
    return golden_trace(shared_traces)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_a_policy_does_what_the_golden_table_says(
    name: str, trace: Trace, request: pytest.FixtureRequest
) -> None:
    row = golden_row(name, trace)
    if request.config.getoption("--write-golden"):
        write_row(name, row)
    golden = read_table()
    assert name in golden, "it is not in the table: run this file with --write-golden"
    assert not differences(row, golden[name])


def test_the_table_holds_policies_only() -> None:
    assert sorted(read_table()) == sorted(POLICIES)


def test_a_row_that_differs_is_told() -> None:
    golden = read_table()["vllm"]
    assert not differences(golden, golden)
    preemptions = {**golden, "preemptions": str(int(golden["preemptions"]) + 1)}
    assert len(differences(preemptions, golden)) == 1
    mean = float(golden["TTFT mean s"])
    assert not differences({**golden, "TTFT mean s": f"{mean + 0.001:.3f}"}, golden)
    assert len(differences({**golden, "TTFT mean s": f"{mean + 0.002:.3f}"}, golden)) == 1


def test_the_page_of_the_policies_says_the_place_of_each(request: pytest.FixtureRequest) -> None:
    if request.config.getoption("--write-golden"):
        write_places()
    rows = read_table()
    assert read_places() == {name: place(name, rows) for name in POLICIES}
