"""Execute twice, calibrate on one run, validate on the other: files and decisions only."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

torch = pytest.importorskip("torch")

from schedsim.costs import load_fitted
from schedsim.costs.fitted import make_fitted
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


def test_the_replay_takes_every_decision_again(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    printed: dict[str, Any] = json.loads(
        ran(
            *("validate", "--from", folder / "measured", "--calibration", folder / "fitted.json"),
            *("--out", out, "--json"),
        )
    )
    assert printed["replay"]["same"] is True
    decisions = printed["replay"]["decisions"]
    assert decisions["iterations"] == len(pd.read_parquet(folder / "measured" / "steps.parquet"))
    assert decisions["preemptions"] == printed["metrics"]["preemptions"]["measured"] > 0
    assert printed["calibration_saw"] == "trace"
    for parts in printed["error_budget"].values():
        assert parts["decisions"] in (0.0, None)
    assert printed["steps"]["iterations"] > 0
    assert names(out) == {"validation.json", "requests.parquet", "replayed", "simulated"}
    same = ran("diff", folder / "measured", out / "replayed")
    assert "iterations, the same: " in same
    measured, replayed = (
        pd.read_parquet(run / "requests.parquet") for run in (folder / "measured", out / "replayed")
    )
    # A replay has no inbox: it hands over when the recorded engine looked.
    assert (measured["released"] <= replayed["released"]).all()
    pd.testing.assert_frame_equal(
        measured.drop(columns="released"), replayed.drop(columns="released")
    )


def test_runs_of_two_devices_are_not_mixed(folder: Path, tmp_path: Path) -> None:
    simulated = tmp_path / "simulated"
    ran("run", "--model", "tiny", "--limit", 40, *LOAD, "--out", simulated)
    ended = schedsim(
        *("calibrate", "--from", folder / "other", "--from", simulated),
        *("--out", tmp_path / "fitted.json"),
    )
    assert ended.exit_code == 2
    assert "differ in device" in ended.stderr
