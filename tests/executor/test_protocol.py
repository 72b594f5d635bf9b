"""A small protocol measured on a CPU in two calls, evaluated, and told in tables."""

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")

from schedsim.errors import ResultError
from schedsim.experiments.protocol.evaluating import HELD, evaluate, num_validations
from schedsim.experiments.protocol.index import (
    INDEX,
    CapacityEntry,
    Index,
    load_index,
    load_indices,
)
from schedsim.experiments.protocol.measuring import Campaign
from schedsim.experiments.protocol.plan import Protocol, Share, read_protocol
from schedsim.experiments.protocol.table import markdown_of
from schedsim.results.stored_run import load_run
from tests.cli.commands import names

LINEAR = "linear:vidur-closed-form"

CELLS = """\
purpose = "development"
seconds = 0.5
capacity_seconds = 0.1
capacity_repeats = 1
overhead_s = 0
sizing = "linear:vidur-closed-form"

[engine]
model = "tiny"
blocks = 40
max_seqs = 2
max_model_len = 600
token_scale = 0.03

[device]
device = "cpu"
threads = 1

[traces.lengths]
preset = "sharegpt"
requests = 3000

[[cells]]
name = "near"
trace = "lengths"
policy = "vllm"
load = 0.8
kind = "near"
choice = "both"

[[cells]]
name = "other"
trace = "lengths"
policy = "srtf"
load = 0.8
kind = "choice"
capacity_of = "near"
choice = "both"
repeats = 1
"""


@pytest.fixture(scope="module")
def protocol(tmp_path_factory: pytest.TempPathFactory) -> Protocol:
    path = tmp_path_factory.mktemp("protocol") / "cells.toml"
    path.write_text(CELLS)
    return read_protocol(path)


def time_for(runs: int) -> Callable[[], float]:
    """Seconds that are left: enough for so many runs, then none."""
    left = iter([1e9] * runs)
    return lambda: next(left, 0.0)


def test_it_is_measured_in_two_calls_and_evaluated(protocol: Protocol, tmp_path: Path) -> None:
    state = tmp_path / "state"
    told: list[str] = []
    done = Campaign(protocol, state, tmp_path, time_for(2), tell=told.append).measure()
    assert len(done.measured) == 2
    assert told[:-1] == done.measured
    assert "no time left for near, which is taken to need" in told[-1]
    assert done.missing == 2
    first = load_index(state)
    assert first.device is not None
    assert len(first.capacities["lengths,vllm"].runs) == 1
    assert len(first.cells["near"].runs) == 1

    steps = []
    early = evaluate(
        protocol, [state], tmp_path, LINEAR, tmp_path / "early", progress=lambda: steps.append(1)
    )
    assert early.missing == ["near (1 of 2 runs)", "other"]
    assert len(steps) == num_validations(protocol) == 2
    assert "near (1 of 2 runs), other" in markdown_of(early, "A heading")

    done = Campaign(protocol, state, tmp_path, time_for(99)).measure()
    assert len(done.measured) == 2
    assert done.missing == 0
    index = load_index(state)
    assert index.capacities == first.capacities
    assert index.cells["near"].runs[0] == first.cells["near"].runs[0]
    assert len(index.cells["near"].runs) == 2
    assert index.cells["other"].rate == index.cells["near"].rate
    assert index.cells["near"].rate == pytest.approx(
        0.8 * index.capacities["lengths,vllm"].requests_per_s[0], rel=1e-5
    )
    assert Campaign(protocol, state, tmp_path, time_for(99)).measure().measured == []
    assert names(state) == {INDEX, "runs"}

    found = evaluate(protocol, [state], tmp_path, LINEAR, tmp_path / "out")
    assert [row["cell"] for row in found.cells] == ["near", "other"]
    assert [row["repeats"] for row in found.cells] == [2, 1]
    for row in (*found.cells, *found.capacities):
        assert row["replay_same"] is True
    for row in found.cells:
        assert set(row["metrics"]) == set(HELD)
        assert row["place"] in ("margin", "spread", "beyond", "far")
    (capacity,) = found.capacities
    assert capacity["tokens_per_s"]["window_s"][1] > 0
    assert {row["choice"] for row in found.choices} == {"both"}
    assert found.missing == []
    page = markdown_of(found, "A heading")
    assert page.startswith("# A heading\n")
    assert "| near | 2 | exact |" in page
    assert "| both | end to end mean (s) |" in page


def test_nothing_measured_is_told_and_another_device_is_refused(
    protocol: Protocol, tmp_path: Path
) -> None:
    with pytest.raises(ResultError, match="holds no run of this protocol"):
        evaluate(protocol, [tmp_path], tmp_path, "roofline", tmp_path / "out")
    index = load_index(tmp_path)
    index.device = "another device"
    index.write(tmp_path)
    with pytest.raises(ResultError, match="holds runs of another device"):
        Campaign(protocol, tmp_path, tmp_path, time_for(99)).measure()


def test_two_shares_beside_each_other_measure_what_one_would(
    protocol: Protocol, tmp_path: Path
) -> None:
    protocol = protocol.model_copy(update={"capacity_repeats": 2})
    folders = (tmp_path / "first", tmp_path / "second")
    told: list[str] = []

    def campaign(number: int, runs: int) -> Campaign:
        own, other = folders[number - 1], folders[2 - number]
        return Campaign(
            *(protocol, own, tmp_path, time_for(runs)),
            share=Share(number, 2),
            beside=[other],
            tell=told.append,
        )

    done = campaign(1, 1).measure()
    assert told == [
        *done.measured,
        "waits for the capacity of lengths,vllm, which another share measures",
    ]
    assert (len(done.measured), done.missing) == (1, 1)
    assert load_index(folders[0]).cells == {}

    done = campaign(2, 99).measure()
    assert (len(done.measured), done.missing) == (3, 0)
    done = campaign(1, 99).measure()
    assert (len(done.measured), done.missing) == (1, 0)

    first, second = (load_index(folder) for folder in folders)
    assert set(first.cells) == {"near"}
    assert set(second.cells) == {"near", "other"}
    whole = load_indices(folders)
    did = whole.capacities["lengths,vllm"].requests_per_s
    assert len(did) == 2
    assert first.cells["near"].rate == second.cells["near"].rate == whole.cells["other"].rate
    assert first.cells["near"].rate == pytest.approx(0.8 * sum(did) / 2, rel=1e-5)
    assert whole.cells["near"].runs == [
        str(folder.resolve() / "runs" / "near" / "1") for folder in folders
    ]

    found = evaluate(protocol, folders, tmp_path, LINEAR, tmp_path / "out")
    assert found.missing == []
    assert [row["repeats"] for row in found.cells] == [2, 1]
    assert [row["devices"] for row in found.cells] == [[None, None], [None]]
    (capacity,) = found.capacities
    assert capacity["repeats"] == 2
    assert all(row["replay_same"] for row in (*found.cells, capacity))


def test_a_share_takes_over_the_larger_number_of_requests(
    protocol: Protocol, tmp_path: Path
) -> None:
    """Another share found that too few keep the device busy: what was measured with them goes."""
    protocol = protocol.model_copy(update={"capacity_repeats": 2})
    own, other = tmp_path / "own", tmp_path / "other"
    campaign = Campaign(protocol, own, tmp_path, time_for(1), share=Share(1, 2), beside=[other])
    campaign.measure()
    (entry,) = load_index(own).capacities.values()
    more = 2 * entry.requests
    other.mkdir()
    theirs = CapacityEntry(requests=more, requests_per_s=[7.0], runs=["runs/1"])
    Index(capacities={"lengths,vllm": theirs}).write(other)

    again = Campaign(protocol, own, tmp_path, time_for(1), share=Share(1, 2), beside=[other])
    assert len(again.measure().measured) == 1
    (anew,) = load_index(own).capacities.values()
    assert (anew.requests, len(anew.runs)) == (more, 1)
    assert anew.runs != entry.runs
    run = load_run(own / anew.runs[0])
    assert run.manifest["config"]["limit"] == more
    assert run.manifest["config"]["arrivals"] == "burst"
