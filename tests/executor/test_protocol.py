"""A small protocol measured on a CPU in two calls, evaluated, and told in tables."""

from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")

from schedsim.errors import ResultError
from schedsim.experiments.protocol.evaluating import HELD, evaluate, num_validations
from schedsim.experiments.protocol.index import INDEX, CellEntry, Index, load_index, load_indices
from schedsim.experiments.protocol.measuring import Campaign
from schedsim.experiments.protocol.plan import Protocol, read_protocol, share_of
from schedsim.experiments.protocol.table import markdown_of
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
        0.8 * index.capacities["lengths,vllm"].mean, rel=1e-5
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


def test_shares_have_every_cell_once_and_those_of_one_capacity_together() -> None:
    whole = read_protocol(Path("validation/cells.toml"))
    for shares in (1, 2, 3, 20):
        parts = [share_of(whole, share, shares) for share in range(1, shares + 1)]
        names_of = [{cell.name for cell in part.cells} for part in parts]
        assert sum(map(len, names_of)) == len(whole.cells)
        assert set.union(*names_of) == {cell.name for cell in whole.cells}
        for part, own in zip(parts, names_of, strict=True):
            assert {cell.capacity_of or cell.name for cell in part.cells} <= own
    runs = [
        sum(map(part.repeats_of, part.cells))
        + len({part.capacity_key(cell) for cell in part.cells}) * part.capacity_repeats
        for part in (share_of(whole, share, 2) for share in (1, 2))
    ]
    assert abs(runs[0] - runs[1]) <= 5


def test_folders_of_several_gpus_are_one(tmp_path: Path) -> None:
    folders = [tmp_path / name for name in "ab"]
    for folder, device in zip(folders, ("GPU", "GPU"), strict=True):
        folder.mkdir()
        Index(device=device, cells={folder.name: CellEntry(rate=1.0, runs=["runs/1"])}).write(
            folder
        )
    whole = load_indices(folders)
    assert whole.cells["b"].runs == [str(folders[1].resolve() / "runs/1")]
    with pytest.raises(ResultError, match="holds 'a', which another folder holds"):
        load_indices([folders[0], folders[0]])
    Index(device="another").write(folders[1])
    with pytest.raises(ResultError, match="holds runs of another, not of GPU"):
        load_indices(folders)
