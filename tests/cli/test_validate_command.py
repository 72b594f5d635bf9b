"""`schedsim validate` on simulations that pretend to be measured, and on what does not fit."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from schedsim.costs import RooflineCost
from schedsim.experiments.validation import METRICS
from tests.cli.commands import manifest, names, refused, schedsim

STEP_TIME = "linear:vidur-closed-form"
LENGTHS = "num_prefill_tokens,num_decode_tokens\n" + "100,20\n300,5\n50,40\n900,60\n" * 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace, `measured` and `light` runs of it under pressure, and a fit to the latter."""
    folder = tmp_path_factory.mktemp("validate")
    trace = folder / "lengths.csv"
    trace.write_text(LENGTHS)
    options: dict[str, tuple[object, ...]] = {
        "measured": ("--arrivals", "poisson:rate=30", "--decisions", "--seed", 3),
        "light": ("--arrivals", "poisson:rate=6", "--policy", "sarathi"),
    }
    for name, given in options.items():
        done = schedsim(
            *("run", trace, "--blocks", 200, "--max-model-len", 2048, "--step-time", STEP_TIME),
            *given,
            *("--out", folder / name),
        )
        assert done.exit_code == 0, done.stderr
    done = schedsim("calibrate", "--from", folder / "light", "--out", folder / "fitted.json")
    assert done.exit_code == 0, done.stderr
    return folder


def validated(folder: Path, *arguments: object) -> dict[str, Any]:
    ended = schedsim(
        "validate", folder / "lengths.csv", "--from", folder / "measured", *arguments, "--json"
    )
    assert ended.exit_code == 0, ended.stderr
    printed: dict[str, Any] = json.loads(ended.stdout)
    return printed


def test_the_step_time_that_made_the_run_has_no_error(folder: Path) -> None:
    printed = validated(folder, "--calibration", folder / "fitted.json")
    assert printed["replay"]["same"] is True
    assert printed["replay"]["decisions"]["preemptions"] > 0
    assert printed["divergence"]["same"] is True
    assert set(printed["metrics"]) == set(METRICS)
    for name, figures in printed["metrics"].items():
        if figures["measured"] is not None:
            assert figures["simulated"] == pytest.approx(figures["measured"], rel=1e-6), name
    assert printed["steps"]["p90"] < 1e-6
    assert printed["steps"]["by_kind"]["mixed"]["iterations"] > 0
    assert printed["calibration_saw"] == "trace"


def test_another_step_time_is_off_and_not_the_decisions(folder: Path) -> None:
    printed = validated(folder, "--step-time", "roofline")
    assert printed["replay"]["same"] is True
    assert printed["divergence"]["same"] is False
    assert printed["calibration_saw"] is None
    error = printed["metrics"]["makespan_s"]["relative_error"]
    assert error == pytest.approx(printed["error_budget"]["makespan_s"]["step_time"])
    assert abs(error) > 0.05
    assert all(parts["decisions"] in (0.0, None) for parts in printed["error_budget"].values())
    assert printed["steps"]["total"] < -0.05


def test_a_table_and_one_line_on_the_error(folder: Path) -> None:
    ended = schedsim(
        *("validate", folder / "lengths.csv", "--from", folder / "measured"),
        *("--calibration", folder / "fitted.json"),
    )
    assert ended.exit_code == 0
    first, *_, last = ended.stdout.splitlines()
    assert first.startswith("replay with the measured times: ")
    assert "iterations, the same: " in first
    assert last.startswith("end to end mean: +0.00 %, of which +0.00 % decisions and +0.00 % step")
    for label in ("measured", "TTFT p99 (s)", "KV used", "decode only", "preemptions"):
        assert label in ended.stdout
    assert any("IN-SAMPLE: the calibration saw this trace" in text for text in ended.notes)
    assert "note: the free simulation decides everything as the run did" in ended.notes


def test_the_run_of_the_calibration_is_in_sample(folder: Path) -> None:
    ended = schedsim(
        *("validate", folder / "lengths.csv", "--from", folder / "light"),
        *("--calibration", folder / "fitted.json"),
    )
    assert any("IN-SAMPLE: the calibration saw this run" in text for text in ended.notes)
    assert any("has no decision record" in text for text in ended.notes)
    assert "every batch has the measured size" in ended.stdout


def test_out_keeps_everything(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    printed = validated(folder, "--step-time", "roofline", "--out", out)
    assert names(out) == {"validation.json", "requests.parquet", "replayed", "simulated"}
    assert json.loads((out / "validation.json").read_text()) == printed
    requests = pd.read_parquet(out / "requests.parquet")
    assert len(requests) == 80
    measured = pd.read_parquet(folder / "measured" / "requests.parquet")
    simulated = pd.read_parquet(out / "simulated" / "requests.parquet")
    assert requests["measured_e2e_s"].equals(measured["e2e_s"])
    assert requests["simulated_e2e_s"].equals(simulated["e2e_s"])
    assert schedsim("diff", folder / "measured", out / "replayed").exit_code == 0
    assert schedsim("diff", folder / "measured", out / "simulated").exit_code == 1
    again = refused(
        *("validate", folder / "lengths.csv", "--from", folder / "measured"),
        *("--step-time", "roofline", "--out", out),
    )
    assert "is not empty" in again


def changed(folder: Path, into: Path, **config: Any) -> Path:
    """A copy of the measured run with other settings in its manifest."""
    shutil.copytree(folder / "measured", into)
    content = manifest(into)
    content["config"] |= config
    (into / "manifest.json").write_text(json.dumps(content))
    return into


def test_a_replay_that_decides_otherwise_ends_with_1_and_shows_where(
    folder: Path, tmp_path: Path
) -> None:
    run = changed(folder, tmp_path / "other", policy="sarathi,chunk_size=64")
    ended = schedsim("validate", folder / "lengths.csv", "--from", run, "--step-time", STEP_TIME)
    assert ended.exit_code == 1
    assert "of the replay: " in ended.stdout
    assert "the first difference is in iteration" in ended.stdout
    assert ended.stdout.splitlines()[-1] == "end to end mean: no error can be told apart"


def test_a_decision_that_the_record_has_otherwise_is_shown(folder: Path, tmp_path: Path) -> None:
    run = changed(folder, tmp_path / "other")
    record = run / "decisions.jsonl.gz"
    meta, first, *rest = gzip.decompress(record.read_bytes()).splitlines()
    altered = {**json.loads(first), "free_after_update": 1}
    lines = [meta, json.dumps(altered).encode(), *rest]
    record.write_bytes(gzip.compress(b"".join(line + b"\n" for line in lines)))
    ended = schedsim("validate", folder / "lengths.csv", "--from", run, "--step-time", STEP_TIME)
    assert ended.exit_code == 1
    assert "the first difference is in iteration 0" in ended.stdout
    assert "free_after_update" in ended.stdout


def test_what_does_not_fit_is_one_message(folder: Path, tmp_path: Path) -> None:
    trace, measured = folder / "lengths.csv", folder / "measured"

    def said(trace: Path, run: Path, *more: object) -> str:
        return refused("validate", trace, "--from", run, *(more or ("--step-time", STEP_TIME)))

    other = tmp_path / "other.csv"
    other.write_text(LENGTHS + "1,1\n")
    assert f"is not the trace of {measured}, which ran lengths.csv (sha256 " in said(
        other, measured
    )
    assert "no such run directory" in said(trace, tmp_path / "nowhere")
    assert "give the step time" in said(trace, measured, "--quiet")
    both = ("--step-time", STEP_TIME, "--calibration", folder / "fitted.json")
    assert "either --calibration FILE" in said(trace, measured, *both)
    assert "schedsim calibrate" in said(trace, measured, "--calibration", tmp_path / "none.json")
    record = f"recorded:{measured}"
    told = said(trace, measured, "--step-time", record)
    assert f"{record}: a record is no step-time model" in told
    assert "--from RUN_DIR" in refused("validate", trace, "--step-time", STEP_TIME)
    future = changed(folder, tmp_path / "future", colour="red")
    assert "settings are not of this version (unknown setting 'colour'" in said(trace, future)
    noted = changed(folder, tmp_path / "noted", token_scale=0.5)
    assert "was read otherwise for" in said(trace, noted)


def test_what_stops_a_validation_before_it_began_leaves_nothing(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    for step_time in ("rooflin", "linear:nowhere.toml", f"recorded:{folder / 'measured'}"):
        refused(
            *("validate", folder / "lengths.csv", "--from", folder / "measured"),
            *("--step-time", step_time, "--out", out),
        )
        assert not out.exists()


def test_what_stops_a_validation_in_the_middle_is_told_with_what_is_kept(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*parts: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr(RooflineCost, "seconds", interrupted)
    out = tmp_path / "out"
    ended = schedsim(
        *("validate", folder / "lengths.csv", "--from", folder / "measured"),
        *("--step-time", "roofline", "--out", out),
    )
    assert ended.exit_code == 130
    assert f"note: not validated; kept in {out}: replayed, simulated" in ended.notes
    assert names(out) == {"replayed", "simulated"}
    assert manifest(out / "replayed")["complete"] is True
    assert manifest(out / "simulated")["complete"] is False
