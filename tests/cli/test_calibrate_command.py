"""`schedsim calibrate` on simulations that pretend to be measured, and on what is no run."""

import json
import shutil
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from schedsim.costs import load_fitted
from tests.cli.commands import manifest, refused, schedsim

LINEAR = "linear:vidur-closed-form"
COEFFICIENTS = {
    "base": 6e-3,
    "prefill_tokens": 55e-6,
    "decode_requests": 30e-6,
    "prefill_attention": 3.5e-9,
    "decode_context": 40e-9,
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of the sample: `light` and `heavy`, of one device, and one of another model."""
    folder = tmp_path_factory.mktemp("runs")
    options: dict[str, tuple[object, ...]] = {
        "light": (),
        "heavy": ("--rate-scale", 3, "--policy", "sarathi"),
        "other": ("--model", "llama-3.2-1b"),
        "blocks": ("--block-size", 32),
        "short": ("--limit", 1, "--max-output", "const:2"),
    }
    for name, given in options.items():
        done = schedsim(
            *("run", "--limit", 60, "--blocks", 900, "--step-time", LINEAR),
            *given,
            *("--out", folder / name),
        )
        assert done.exit_code == 0, done.stderr
    return folder


def calibrated(out: Path, *runs: Path) -> dict[str, Any]:
    options = [part for run in runs for part in ("--from", run)]
    ended = schedsim("calibrate", *options, "--out", out, "--no-picture")
    assert ended.exit_code == 0, ended.stderr
    assert "decode_context" in ended.stdout
    assert "held out" in ended.stdout
    assert f"use it with  --step-time fitted:{out}" in ended.stderr
    content: dict[str, Any] = json.loads(out.read_text())
    return content


def lines(part: dict[str, Any]) -> dict[str, float]:
    """Base and last slope of each term of a part."""
    terms = {name: term["slopes"][-1] for name, term in part["terms"].items()}
    return {"base": part["base"], **terms}


def test_a_linear_step_time_is_found_exactly(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "fitted.json"
    content = calibrated(out, runs / "light", runs / "heavy")
    device = lines(content["parts"]["device"])
    assert {name: device[name] for name in COEFFICIENTS} == pytest.approx(COEFFICIENTS, rel=1e-4)
    for part in ("host", "gap"):
        assert content["parts"][part] == {"base": 0.0, "terms": {}}
    assert content["residuals"]["cross_validated"]["p90"] < 1e-6


def test_the_file_says_what_it_was_fitted_to(runs: Path, tmp_path: Path) -> None:
    content = calibrated(tmp_path / "fitted.json", runs / "light", runs / "heavy")
    files = [runs / name / "steps.parquet" for name in ("light", "heavy")]
    tables = [pyarrow.parquet.read_table(file) for file in files]
    assert content["steps"] == sum(table.num_rows for table in tables)
    most = max(max(table.column("prefill_tokens").to_pylist()) for table in tables)
    assert content["ranges"]["prefill_tokens"] == [0.0, most]
    provenance, ran = content["provenance"], manifest(runs / "light")
    assert provenance["model"] == "llama-3-8b"
    assert provenance["device"] == ran["device"]
    assert provenance["versions"] == ran["versions"]
    first = provenance["runs"][0]
    assert first["command"] == ran["command"]
    assert first["trace_sha256"] == ran["trace"]["sha256"]
    assert first["finished_at"] == ran["finished_at"]
    assert [run["policy"] for run in provenance["runs"]] == ["vllm", "sarathi"]


def test_batches_that_a_trace_hardly_repeats_have_no_noise(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "fitted.json"
    ended = schedsim("calibrate", "--from", runs / "light", "--out", out, "--no-picture")
    (note,) = [text for text in ended.notes if "no noise for --step-noise to draw" in text]
    content = json.loads(out.read_text())
    assert note.removeprefix("note: ") in content["warnings"]
    by_kind = content["residuals"]["by_kind"]
    ran = {kind for kind, figures in by_kind.items() if figures["iterations"]}
    assert {"prefill", "mixed"} & ran - set(content["noise"])
    for kind in ran:
        assert (kind in content["noise"]) != (kind in note.partition(": ")[2]), kind
    out.write_text(json.dumps({**content, "noise": {}}))
    told = refused("run", "--limit", 5, "--step-time", f"fitted:{out}", "--step-noise")
    assert "give the fitted:FILE of a designed calibration" in told


def test_the_same_runs_give_the_same_file(runs: Path, tmp_path: Path) -> None:
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    calibrated(one, runs / "heavy")
    calibrated(other, runs / "heavy")
    assert one.read_bytes() == other.read_bytes()


def test_a_run_with_the_file_is_the_run_it_was_fitted_to(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "fitted.json"
    calibrated(out, runs / "heavy")
    arguments = ("run", "--limit", 60, "--blocks", 900, "--policy", "sarathi", "--rate-scale", 3)
    for name, step_time in (("linear", LINEAR), ("fitted", f"fitted:{out}")):
        done = schedsim(*arguments, "--step-time", step_time, "--out", tmp_path / name)
        assert done.exit_code == 0, done.stderr
    linear, fitted = (
        json.loads((tmp_path / name / "summary.json").read_text()) for name in ("linear", "fitted")
    )
    assert fitted["makespan_s"] == pytest.approx(linear["makespan_s"], rel=1e-6)
    described = manifest(tmp_path / "fitted")["step_time"]
    assert described == load_fitted(str(out)).describe()
    assert not [text for text in done.notes if "go beyond" in text]


def test_host_time_and_gaps_come_back_as_they_were(runs: Path, tmp_path: Path) -> None:
    content = calibrated(tmp_path / "fitted.json", runs / "light", runs / "heavy")
    decodes = {"decode_requests": {"knots": [0.0], "slopes": [2e-5]}}
    content["parts"] |= {"host": {"base": 1e-3, "terms": decodes}, "gap": {"base": 5e-4}}
    made_up = tmp_path / "made_up.json"
    made_up.write_text(json.dumps(content))
    done = schedsim(
        *("run", "--limit", 60, "--blocks", 900, "--rate-scale", 0.5, "--decisions"),
        *("--step-time", f"fitted:{made_up}", "--out", tmp_path / "run"),
    )
    assert done.exit_code == 0, done.stderr
    again = calibrated(tmp_path / "again.json", tmp_path / "run")
    host, gap = lines(again["parts"]["host"]), lines(again["parts"]["gap"])
    assert {name: host[name] for name in ("base", "decode_requests")} == pytest.approx(
        {"base": 1e-3, "decode_requests": 2e-5}, rel=1e-4
    )
    assert gap["base"] == pytest.approx(5e-4, rel=1e-4)
    assert again["residuals"]["in_sample"]["p90"] < 1e-6
    validated = schedsim(
        "validate", "--from", tmp_path / "run", "--calibration", tmp_path / "again.json", "--json"
    )
    (cell,) = json.loads(validated.stdout)["cells"]
    assert cell["replays"][0]["same"] is True
    assert cell["metrics"]["ttft_s.mean"]["error"] == pytest.approx(0.0, abs=1e-4)


def test_host_time_beside_the_iteration_before_adds_nothing(runs: Path, tmp_path: Path) -> None:
    content = calibrated(tmp_path / "fitted.json", runs / "light", runs / "heavy")
    content["parts"] |= {"host": {"base": 1e-3}, "gap": {"base": 5e-4}}
    made_up = tmp_path / "made_up.json"
    made_up.write_text(json.dumps(content))
    done = schedsim(
        *("run", "--limit", 60, "--blocks", 900, "--rate-scale", 0.5, "--decisions"),
        *("--step-time", f"fitted:{made_up}", "--decision-lag", 1, "--out", tmp_path / "run"),
    )
    assert done.exit_code == 0, done.stderr
    again = calibrated(tmp_path / "again.json", tmp_path / "run")
    device, gap = lines(again["parts"]["device"]), lines(again["parts"]["gap"])
    assert {name: device[name] for name in COEFFICIENTS} == pytest.approx(COEFFICIENTS, rel=1e-3)
    assert gap["base"] == pytest.approx(5e-4, rel=1e-4)
    assert again["residuals"]["in_sample"]["p90"] < 1e-6
    assert sum(again["residuals"]["time_shares"].values()) == pytest.approx(1.0)
    validated = schedsim(
        "validate", "--from", tmp_path / "run", "--calibration", tmp_path / "again.json", "--json"
    )
    (cell,) = json.loads(validated.stdout)["cells"]
    assert cell["replays"][0]["same"] is True
    assert cell["steps"]["p90"] < 1e-6
    assert cell["metrics"]["ttft_s.mean"]["error"] == pytest.approx(0.0, abs=1e-4)


def test_a_run_beyond_what_was_measured_is_noted_once(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "fitted.json"
    calibrated(out, runs / "light")
    ended = schedsim(
        *("run", "--limit", 60, "--rate-scale", 3, "--blocks", 900, "--model", "llama-2-7b"),
        *("--step-time", f"fitted:{out}", "--policy", "vllm", "--policy", "sarathi"),
    )
    beyond = [text for text in ended.notes if "go beyond what was measured" in text]
    assert [text.split(":")[1].strip() for text in beyond] == ["vllm", "sarathi"]
    assert all("decode_requests up to " in text for text in beyond)
    assert not [text for text in ended.notes if "fitted to KV blocks" in text]
    ended = schedsim("run", "--limit", 5, "--step-time", f"fitted:{out}", "--block-size", 32)
    assert (
        "note: step times were fitted to KV blocks of 16 tokens; here they have 32" in ended.notes
    )
    several = ("run", "--limit", 5, "--tensor-parallel", 2, "--step-time", f"fitted:{out}")
    note = "note: step times were fitted with --tensor-parallel 1; here it is 2"
    assert note in schedsim(*several).notes


def test_a_fit_to_another_model_is_noted_once(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "fitted.json"
    calibrated(out, runs / "light")
    ended = schedsim(
        *("run", "--limit", 5, "--model", "llama-2-7b", "--step-time", f"fitted:{out}"),
        *("--policy", "vllm", "--policy", "sarathi"),
    )
    (other,) = [text for text in ended.notes if "not of llama-2-7b" in text]
    assert "llama-3-8b" in other


def test_json_is_the_file(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "fitted.json"
    ended = schedsim("calibrate", "--from", runs / "light", "--out", out, "--json", "--no-picture")
    assert ended.stdout == out.read_text()


def test_a_file_is_replaced_only_by_force(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "fitted.json"
    out.write_text("mine")
    assert "replace it with --force" in refused("calibrate", "--from", runs / "light", "--out", out)
    assert out.read_text() == "mine"
    assert schedsim("calibrate", "--from", runs / "light", "--out", out, "--force").exit_code == 0
    nowhere = tmp_path / "nowhere" / "fitted.json"
    assert "does not exist" in refused("calibrate", "--from", runs / "light", "--out", nowhere)


def broken(runs: Path, folder: Path, **changes: Any) -> Path:
    """A copy of `light` whose manifest is changed."""
    shutil.copytree(runs / "light", folder)
    content = {**manifest(folder), **changes}
    (folder / "manifest.json").write_text(json.dumps(content))
    return folder


def test_what_is_no_finished_run_is_one_message(runs: Path, tmp_path: Path) -> None:
    def said(*given: Path) -> str:
        options = [part for run in given for part in ("--from", run)]
        return refused("calibrate", *options, "--out", tmp_path / "out.json")

    light = runs / "light"
    assert "give either the model to measure, with --model or --weights, or the runs" in said()
    assert "no such run directory" in said(tmp_path / "nowhere")
    assert "is not a run directory" in said(tmp_path)
    assert "name one of the runs in it: blocks, heavy, light, other, short" in said(runs)
    assert "differ in model ('llama-3-8b' and 'llama-3.2-1b')" in said(light, runs / "other")
    same = shutil.copytree(light, tmp_path / "same")
    assert f"{light} and {same} hold the same iterations" in said(light, runs / "heavy", same)
    assert "differ in block_size (16 and 32)" in said(light, runs / "blocks")
    assert "iterations are too few for a fit" in said(runs / "short")
    assert "is incomplete: stopped" in said(
        broken(runs, tmp_path / "incomplete", complete=False, stopped="stopped")
    )
    assert "has schema version 99, this schedsim reads" in said(
        broken(runs, tmp_path / "version", schema_version=99)
    )
    assert "holds no 'config'" in said(broken(runs, tmp_path / "config", config=None))
    without = broken(runs, tmp_path / "without")
    (without / "steps.parquet").unlink()
    assert f"{without / 'steps.parquet'} does not exist; run it again" in said(without)
    steps = pyarrow.parquet.read_table(light / "steps.parquet")
    pyarrow.parquet.write_table(steps.slice(0, 0), without / "steps.parquet")
    assert "holds no iteration" in said(without)
    pyarrow.parquet.write_table(steps.drop_columns(["sampled"]), without / "steps.parquet")
    assert "steps.parquet lacks sampled" in said(without)
    (without / "steps.parquet").write_bytes(b"PAR1 and nothing")
    assert "steps.parquet cannot be read" in said(without)
    (without / "manifest.json").write_text("{")
    assert "manifest.json cannot be read" in said(without)
    assert not (tmp_path / "out.json").exists()


def test_a_file_is_not_lost_under_its_picture(runs: Path, tmp_path: Path) -> None:
    out = tmp_path / "fitted.svg"
    given = ("calibrate", "--from", runs / "heavy", "--out", out)
    assert "the picture gets this name" in refused(*given)
    assert not out.exists()
    assert schedsim(*given, "--no-picture").exit_code == 0
    assert load_fitted(str(out)).model == "llama-3-8b"


@pytest.mark.parametrize(
    "option",
    [
        ("--keep", "kept"),
        ("--device", "cuda"),
        ("--time-limit", 240),
        ("--seed", 0),
        ("--memory", "paged"),
    ],
)
def test_what_is_measured_cannot_be_said_beside_runs(
    option: tuple[object, ...], runs: Path, tmp_path: Path
) -> None:
    out = tmp_path / "fitted.json"
    said = refused("calibrate", "--from", runs / "heavy", "--out", out, *option)
    assert f"{option[0]} is for measuring; with --from all settings are those of the runs" in said
    assert not out.exists()


def test_runs_in_which_nothing_took_time_are_one_message(tmp_path: Path) -> None:
    keys = "base prefill_token decode_request prefill_attention decode_context"
    (tmp_path / "zero.toml").write_text("".join(f"{key}_ms = 0\n" for key in keys.split()))
    run = ("run", "--limit", 40, "--step-time", f"linear:{tmp_path / 'zero.toml'}")
    assert schedsim(*run, "--out", tmp_path / "run").exit_code == 0
    out = tmp_path / "fitted.json"
    said = refused("calibrate", "--from", tmp_path / "run", "--out", out)
    assert "no iteration took any time" in said
    assert not out.exists()
