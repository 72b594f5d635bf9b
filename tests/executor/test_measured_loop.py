"""Calibrate on other runs, execute, validate: replays, fields and files, never the clock."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")

from schedsim import sample_trace
from schedsim.costs import load_fitted
from schedsim.costs.fitted import make_fitted
from schedsim.experiments.validation.cells import make_cells
from schedsim.experiments.validation.retiming import Decided, other_device_time
from schedsim.experiments.validation.saturation import SATURATED
from schedsim.experiments.validation.simulations import Simulations
from schedsim.results.stored_run import float_column, load_run
from schedsim.scheduler.batch import BatchShape
from tests.cli.commands import manifest, names, schedsim

ENGINE = ("--model", "tiny", "--blocks", 40, "--block-size", 8, "--max-seqs", 8)
LOAD = ("--token-scale", 0.03, "--arrivals", "burst")
ON_CPU = ("--device", "cpu", "--threads", 1)


def ran(*arguments: object) -> str:
    ended = schedsim(*arguments)
    assert ended.exit_code == 0, ended.stderr
    return ended.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of 40 requests of the sample: `other`, to calibrate on, and `measured`."""
    folder = tmp_path_factory.mktemp("loop")
    for name, policy, seed in (("other", "sarathi,chunk_size=32", 1), ("measured", "vllm", 0)):
        ran(
            *("execute", "--limit", 40, *ENGINE, *LOAD, *ON_CPU, "--seed", seed, "--decisions"),
            *("--policy", policy, "--out", folder / name),
        )
    ran("calibrate", "--from", folder / "other", "--out", folder / "fitted.json")
    return folder


def test_the_calibration_is_of_the_device(folder: Path) -> None:
    file, ran_on = load_fitted(str(folder / "fitted.json")).file, manifest(folder / "other")
    assert file.provenance["device"] == ran_on["device"]
    assert file.provenance["model"] == "tiny"
    assert file.provenance["dtype"] == "float32"
    assert file.provenance["threads"] == 1
    assert file.steps == len(pd.read_parquet(folder / "other" / "steps.parquet"))
    assert set(file.residuals["time_shares"]) == {"host", "device", "gap"}
    decode = BatchShape(decode_requests=1, decode_context=20, longest_context=20, sampled=1)
    assert min(make_fitted(file, "fitted.json").parts(decode)[:2]) > 0


def test_the_whole_loop(folder: Path, tmp_path: Path) -> None:
    """Two policies, two repeats each, held against a calibration of another run."""
    out = tmp_path / "out"
    printed: dict[str, Any] = json.loads(
        ran(
            *("validate", "--limit", 40, *ENGINE, *LOAD, *ON_CPU, "--seed", 0),
            *("--policy", "vllm", "--policy", "srtf", "--repeats", 2),
            *("--calibration", folder / "fitted.json", "--out", out, "--json"),
        )
    )
    assert [cell["cell"] for cell in printed["cells"]] == ["vllm", "srtf"]
    for cell in printed["cells"]:
        assert [replay["same"] for replay in cell["replays"]] == [True, True]
        assert {replay["compared"] for replay in cell["replays"]} == {"trail"}
        assert cell["calibration_saw"] == "trace"
        for number, divergence in enumerate(cell["divergence"], start=1):
            steps = pd.read_parquet(out / cell["cell"] / f"measured-{number}" / "steps.parquet")
            assert divergence["iterations"]["measured"] == len(steps)
            assert divergence["victims"]["measured"] == steps["preempted"].sum()
            assert divergence["admissions"]["measured"] == 40 + steps["preempted"].sum()
            assert divergence["admissions"]["in_both"] is not None
            assert divergence["order"] is not None
        row = cell["metrics"]["e2e_s.mean"]
        assert len(row["repeats"]) == 2
        assert row["verdict"] in ("equivalent", "different", "inconclusive")
        assert row["spread"] > 0
        assert row["amplification"] is not None
        for parts in cell["error_budget"].values():
            assert parts["decisions"] in (0.0, None)
            told = [parts[part] for part in ("decisions", "step_time", "host_time", "feedback")]
            if parts["error"] is not None:
                assert sum(told) == pytest.approx(parts["error"], abs=1e-9)
        assert set(cell["steps"]["parts"]) == {"host", "device", "gap"}
        begin, end = cell["capacity"]["window_s"]
        assert 0.0 < begin < end
        in_line = cell["capacity"]["in_line"]
        assert cell["capacity"]["saturated"] is (in_line >= SATURATED)
        assert cell["formula_blocks"] is None
        assert names(out / cell["cell"]) == {
            *(f"{kind}-{number}" for kind in ("measured", "replayed") for number in (1, 2)),
            "simulated",
        }
    assert printed["cells"][0]["capacity"]["saturated"]  # 40 at once, for 8 seats
    choices = {choice["metric"]: choice for choice in printed["choices"]}
    assert choices["e2e_s.mean"]["regret"] >= 0
    assert {"validation.json", "requests.parquet"} <= names(out)
    assert len(pd.read_parquet(out / "requests.parquet")) == 160


def test_a_replay_has_the_blocks_and_the_times_of_the_run(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran(
        *("validate", "--from", folder / "measured", "--calibration", folder / "fitted.json"),
        *("--out", out, "--json"),
    )
    replayed_run = out / "vllm" / "replayed-1"
    same = ran("diff", folder / "measured", replayed_run)
    assert "iterations, the same: " in same
    measured, replayed = (
        pd.read_parquet(run / "requests.parquet") for run in (folder / "measured", replayed_run)
    )
    # A replay has no inbox: it hands over when the recorded engine looked.
    assert (measured["released"] <= replayed["released"]).all()
    pd.testing.assert_frame_equal(
        measured.drop(columns="released"), replayed.drop(columns="released")
    )


def test_overlapped_decisions_replay_and_add_up(folder: Path) -> None:
    printed = json.loads(
        ran(
            *("validate", "--limit", 30, *ENGINE, *ON_CPU, "--token-scale", 0.03),
            *("--arrivals", "poisson:rate=40", "--decision-lag", 1, "--policy", "sarathi"),
            *("--repeats", 1, "--calibration", folder / "fitted.json", "--json"),
        )
    )
    (cell,) = printed["cells"]
    assert cell["replays"][0]["same"] is True
    parts = cell["error_budget"]["e2e_s.mean"]
    told = [parts[part] for part in ("decisions", "step_time", "host_time", "feedback")]
    assert sum(told) == pytest.approx(parts["error"], abs=1e-9)
    assert set(cell["load_shift"]) == {"ttft_s.mean", "e2e_s.mean"}


@pytest.mark.parametrize("lag", [0, 1])
def test_with_its_own_device_times_a_run_keeps_all_its_moments(lag: int, tmp_path: Path) -> None:
    """The error budget's first step, where there is no error: all else stays as it was recorded."""
    ran(
        *("execute", "--limit", 40, *ENGINE, *ON_CPU, "--token-scale", 0.03, "--policy", "vllm"),
        *("--arrivals", "poisson:rate=60", "--decision-lag", lag, "--out", tmp_path / "run"),
    )
    run = load_run(tmp_path / "run")
    (cell,) = make_cells([run], sample_trace())
    decided = Decided.of(Simulations(cell, "roofline", tmp_path / "out", ()).replay(1).record)
    steps = decided.steps
    assert decided.hidden.any() == bool(lag)
    host = float_column(run.steps, "host_s") if lag else np.zeros(len(steps))
    moments = other_device_time(decided, np.nan_to_num(host), steps.end - steps.start)
    for name in ("decided_at", "start", "end"):
        np.testing.assert_allclose(getattr(moments, name), getattr(steps, name), atol=1e-9)


def test_runs_of_two_devices_are_not_mixed(folder: Path, tmp_path: Path) -> None:
    simulated = tmp_path / "simulated"
    ran("run", "--model", "tiny", "--limit", 40, *LOAD, "--out", simulated)
    ended = schedsim(
        *("calibrate", "--from", folder / "other", "--from", simulated),
        *("--out", tmp_path / "fitted.json"),
    )
    assert ended.exit_code == 2
    assert "differ in device" in ended.stderr
