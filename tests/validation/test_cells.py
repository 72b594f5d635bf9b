"""Which runs are repeats of each other, and repeats that wrote different things."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from schedsim.experiments.validation.cells import make_cells
from schedsim.results.stored_run import StoredRun
from schedsim.traces import Trace
from tests.validation.runs import LINEAR, fitted, settings, stored, validated

ON_CPU = {"device": "cpu", "dtype": "float32", "attention": "torch", "threads": 1}
ON_GPU = ON_CPU | {"device": "cuda:0", "dtype": "bfloat16", "device_uuid": "one"}


@pytest.fixture(scope="module")
def pair(trace: Trace, tmp_path_factory: pytest.TempPathFactory) -> list[StoredRun]:
    """Two that pretend to be repeats: one is a little slower, and alone wrote whole decisions."""
    folder = tmp_path_factory.mktemp("pair")
    runs = []
    for name, slower in (("one", 1.0), ("other", 1.01)):
        time = fitted(folder / f"{name}.json", slower=slower)
        whole = name == "one"
        run = stored(
            folder / name, trace, settings(step_time=time), decisions=whole, trail=not whole
        )
        config = run.manifest["config"]
        config["step_time"] = config["resolved"]["step_time"] = LINEAR
        runs.append(run)
    return runs


def ran(run: StoredRun, device: str, execution: dict[str, Any]) -> StoredRun:
    """The run, as if a device had run it."""
    return replace(run, manifest={**run.manifest, "device": device, "execution": execution})


@pytest.mark.parametrize(
    ("one", "other", "cells"),
    [
        (("CPU", ON_CPU), ("CPU", ON_CPU), 1),
        (("CPU", ON_CPU), ("another CPU", ON_CPU), 2),
        (("CPU", ON_CPU), ("CPU", ON_CPU | {"dtype": "bfloat16"}), 2),
        (("CPU", ON_CPU), ("CPU", ON_CPU | {"threads": 2}), 2),
        (("H100", ON_GPU), ("H100", ON_GPU | {"threads": 2, "device_uuid": "two"}), 1),
        (("H100", ON_GPU), ("H100", ON_GPU | {"attention": "triton"}), 2),
    ],
)
def test_repeats_are_of_one_kind_of_device(
    one: tuple[str, dict[str, Any]],
    other: tuple[str, dict[str, Any]],
    cells: int,
    pair: list[StoredRun],
    trace: Trace,
) -> None:
    runs = [ran(run, *given) for run, given in zip(pair, (one, other), strict=True)]
    made = make_cells(runs, trace)
    assert len(made) == cells
    assert len({cell.name for cell in made}) == cells


def test_policies_on_two_devices_are_not_chosen_from(trace: Trace, tmp_path: Path) -> None:
    runs = [
        stored(tmp_path / policy, trace, settings(policy=policy)) for policy in ("vllm", "srtf")
    ]
    for devices, alike in ((("CPU", "CPU"), True), (("CPU", "another CPU"), False)):
        moved = [ran(run, device, ON_CPU) for run, device in zip(runs, devices, strict=True)]
        one, other = make_cells(moved, trace)
        assert one.same_but_for_policy(other) is alike


@pytest.mark.parametrize("first", [0, 1])
def test_each_repeat_is_compared_by_what_it_wrote(
    first: int, pair: list[StoredRun], trace: Trace, tmp_path: Path
) -> None:
    runs = pair if first == 0 else pair[::-1]
    (found,) = validated(tmp_path / "out", trace, runs, LINEAR).cells
    wrote = ["decisions", "trail"] if first == 0 else ["trail", "decisions"]
    assert [replay.compared for replay in found.replays] == wrote
    assert [divergence.compared for divergence in found.divergences] == wrote
    assert all(replay.same for replay in found.replays)
