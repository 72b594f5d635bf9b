"""`schedsim validate` on simulations that pretend to be measured, and on what does not fit."""

import gzip
import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from schedsim.costs import RooflineCost
from schedsim.experiments.validation.metrics import METRICS
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


def only_cell(printed: dict[str, Any]) -> dict[str, Any]:
    (cell,) = printed["cells"]
    found: dict[str, Any] = cell
    return found


def test_the_step_time_that_made_the_run_has_no_error(folder: Path) -> None:
    cell = only_cell(validated(folder, "--calibration", folder / "fitted.json"))
    (replay,) = cell["replays"]
    assert replay["same"] is True
    assert replay["compared"] == "decisions"
    assert replay["decisions"]["preemptions"] > 0
    assert cell["divergence"][0]["same"] is True
    assert set(cell["metrics"]) == set(METRICS)
    for name, figures in cell["metrics"].items():
        if figures["measured"] is not None:
            assert figures["simulated"] == pytest.approx(figures["measured"], rel=1e-6), name
    assert cell["steps"]["p90"] < 1e-6
    assert cell["steps"]["by_kind"]["mixed"]["iterations"] > 0
    assert cell["calibration_saw"] == "trace"


def test_another_step_time_is_off_and_not_the_decisions(folder: Path) -> None:
    printed = validated(folder, "--step-time", "roofline", "--margin", "latency=0.05")
    assert printed["margins"] == {"throughput": 0.015, "latency": 0.05}
    cell = only_cell(printed)
    assert cell["replays"][0]["same"] is True
    assert cell["divergence"][0]["same"] is False
    assert cell["divergence"][0]["first_difference"] >= 0
    assert cell["calibration_saw"] is None
    row, budget = cell["metrics"]["e2e_s.mean"], cell["error_budget"]["e2e_s.mean"]
    assert abs(row["error"]) > 0.05
    assert row["verdict"] == "inconclusive"  # of one run nobody knows the spread
    assert row["error"] == pytest.approx(budget["error"])
    assert all(parts["decisions"] in (0.0, None) for parts in cell["error_budget"].values())
    assert cell["steps"]["total"] < -0.05


def test_repeats_of_one_policy_are_one_cell_and_other_policies_are_chosen_from(
    folder: Path, tmp_path: Path
) -> None:
    """The repeats pretend to be measured; they are simulated, one a little slower."""
    slower = tmp_path / "slower.toml"
    slower.write_text(
        "base_ms = 6.01\nprefill_token_ms = 0.055\ndecode_request_ms = 0.03\n"
        "prefill_attention_ms = 3.5e-6\ndecode_context_ms = 4e-5\n"
    )
    paths = []
    for number, (policy, step_time) in enumerate(
        [("vllm", STEP_TIME), ("srtf", STEP_TIME), ("vllm", f"linear:{slower}")]
    ):
        paths.append(tmp_path / f"run-{number}")
        done = schedsim(
            *("run", folder / "lengths.csv", "--blocks", 200, "--max-model-len", 2048),
            *("--arrivals", "poisson:rate=30", "--policy", policy, "--step-time", step_time),
            *("--out", paths[-1]),
        )
        assert done.exit_code == 0, done.stderr
        content = manifest(paths[-1])
        content["config"]["step_time"] = content["config"]["resolved"]["step_time"] = STEP_TIME
        (paths[-1] / "manifest.json").write_text(json.dumps(content))
    runs = [option for path in paths for option in ("--from", path)]
    ended = schedsim("validate", folder / "lengths.csv", *runs, "--step-time", STEP_TIME, "--json")
    assert ended.exit_code == 0, ended.stderr
    printed = json.loads(ended.stdout)
    assert [cell["cell"] for cell in printed["cells"]] == ["vllm", "srtf"]
    vllm, srtf = printed["cells"]
    assert len(vllm["replays"]) == 2
    assert len(vllm["metrics"]["e2e_s.mean"]["repeats"]) == 2
    assert vllm["metrics"]["e2e_s.mean"]["spread"] > 0
    assert srtf["metrics"]["e2e_s.mean"]["spread"] is None
    assert {choice["regret"] for choice in printed["choices"]} == {0.0}


def test_tables_and_sentences(folder: Path) -> None:
    ended = schedsim(
        *("validate", folder / "lengths.csv", "--from", folder / "measured"),
        *("--calibration", folder / "fitted.json"),
    )
    assert ended.exit_code == 0
    first, second, *_ = ended.stdout.splitlines()
    assert first == "== vllm: 80 requests, measured once"
    assert second.startswith("replayed-1 with the measured times: ")
    assert second.endswith("decided alike, by whole decision records, block tables included")
    for label in ("verdict", "inconclusive", "TTFT p90 (s)", "KV used", "error budget", "feedback"):
        assert label in ended.stdout
    assert any("IN-SAMPLE: the calibration saw this trace" in text for text in ended.notes)
    assert any("measured once" in text for text in ended.notes)


def test_the_run_of_the_calibration_is_in_sample(folder: Path) -> None:
    ended = schedsim(
        *("validate", folder / "lengths.csv", "--from", folder / "light"),
        *("--calibration", folder / "fitted.json"),
    )
    assert any("IN-SAMPLE: the calibration saw this run" in text for text in ended.notes)
    assert any("has no decision record" in text for text in ended.notes)
    assert "by the sizes of the batches" in ended.stdout


@pytest.mark.parametrize(
    ("device", "execution", "told"),
    [
        ("CPU", {"device": "cpu", "dtype": "float32", "threads": 1}, []),
        ("GPU", {"device": "cuda:0", "dtype": "float32", "threads": 8}, ["device GPU"]),
        (
            "CPU",
            {"device": "cpu", "dtype": "bfloat16", "threads": 2},
            ["dtype bfloat16", "threads 2"],
        ),
    ],
)
def test_a_calibration_of_something_else_is_told(
    device: str, execution: dict[str, Any], told: list[str], folder: Path, tmp_path: Path
) -> None:
    fitted = json.loads((folder / "fitted.json").read_text())
    fitted["provenance"] |= {"device": "CPU", "dtype": "float32", "threads": 1}
    (tmp_path / "fitted.json").write_text(json.dumps(fitted))
    run = tmp_path / "run"
    shutil.copytree(folder / "measured", run)
    content = manifest(run) | {"device": device, "execution": execution}
    (run / "manifest.json").write_text(json.dumps(content))
    ended = schedsim(
        *("validate", folder / "lengths.csv", "--from", run),
        *("--calibration", tmp_path / "fitted.json"),
    )
    assert ended.exit_code == 0, ended.stderr
    found = [note for note in ended.notes if "and the step time with" in note]
    assert len(found) == len(told)
    for note, what in zip(found, told, strict=True):
        assert f"measured with {what}, and the step time with" in note


def test_out_keeps_everything(folder: Path, tmp_path: Path) -> None:
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    out = tmp_path / "out"
    printed = validated(folder, "--step-time", "roofline", "--out", out)
    files = {"validation.json", "validation.html", "requests.parquet"}
    assert names(out) == {*files, "vllm"}
    assert names(out / "vllm") == {"replayed-1", "simulated"}
    assert json.loads((out / "validation.json").read_text()) == printed
    page = (out / "validation.html").read_text()
    assert "Waiting requests" in page
    assert "Threats to validity" in page
    requests = pd.read_parquet(out / "requests.parquet")
    assert len(requests) == 80
    measured = pd.read_parquet(folder / "measured" / "requests.parquet")
    simulated = pd.read_parquet(out / "vllm" / "simulated" / "requests.parquet")
    assert requests["measured_e2e_s"].equals(measured["e2e_s"])
    assert requests["simulated_e2e_s"].equals(simulated["e2e_s"])
    assert schedsim("diff", folder / "measured", out / "vllm" / "replayed-1").exit_code == 0
    assert schedsim("diff", folder / "measured", out / "vllm" / "simulated").exit_code == 1
    again = refused(
        *("validate", folder / "lengths.csv", "--from", folder / "measured"),
        *("--step-time", "roofline", "--out", out),
    )
    assert "is not empty" in again


def test_the_same_validation_is_the_same_bytes(folder: Path) -> None:
    first, second = (validated(folder, "--step-time", "roofline") for _ in range(2))
    assert first == second


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
    assert "decided otherwise, first in iteration 0" in ended.stdout


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
    twice = ("--policy", "vllm", "--policy", "sarathi", "--policy", "vllm")
    told = refused("validate", trace, "--model", "tiny", *twice, "--step-time", "roofline")
    assert "--policy vllm is there twice; --repeats N" in told
    nested = tmp_path / "report" / "vllm" / "measured-1"
    shutil.copytree(measured, nested)
    assert "runs in it: vllm/measured-1" in said(trace, tmp_path / "report")
    blocks = said(trace, measured, "--step-time", STEP_TIME, "--blocks", 20)
    assert "--blocks is for executions" in blocks
    twice = said(trace, measured, "--from", measured, "--step-time", STEP_TIME)
    assert "is there twice" in twice
    for margin, why in (
        ("latency", "not a number"),
        ("latency=2", "must be above 0 and below 1"),
        ("speed=0.1", "write throughput=SHARE,latency=SHARE"),
        ("latency=0.1,latency=0.2", "write throughput=SHARE"),
    ):
        assert why in said(trace, measured, "--step-time", STEP_TIME, "--margin", margin)
    future = changed(folder, tmp_path / "future", colour="red")
    assert "settings are not of this version (unknown setting 'colour'" in said(trace, future)
    more_room = changed(folder, tmp_path / "room")
    content = manifest(more_room)
    content["config"]["resolved"]["num_blocks"] = 201
    (more_room / "manifest.json").write_text(json.dumps(content))
    (more_room / "steps.parquet").write_bytes((folder / "light" / "steps.parquet").read_bytes())
    other_size = said(trace, measured, "--from", more_room, "--step-time", STEP_TIME)
    assert "came out with num_blocks 200 and 201: they are no repeats" in other_size
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
    kept = "vllm/replayed-1, vllm/simulated"
    assert f"note: not validated; kept in {out}: {kept}" in ended.notes
    assert manifest(out / "vllm" / "replayed-1")["complete"] is True
    assert manifest(out / "vllm" / "simulated")["complete"] is False
