"""A calibration that comes with the package is used where it fits, and it is said; and noise.

The tests of use rely on none that comes with it: their folder is their own.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from schedsim.costs import list_gpus, load_fitted, packaged
from schedsim.costs.fitted_file import FittedFile, Part, Parts, Term
from schedsim.sweep.points import Point
from schedsim.sweep.rows import Runner
from tests.cli.commands import manifest, refused, schedsim

NAME = "h100-llama-3-8b-paged"
RUN = ("run", "--limit", 12, "--blocks", 900)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The packaged calibrations: one of Llama-3-8B on the paged kernels of an H100."""
    slow = Term(knots=[0.0, 100.0], slopes=[0.0, 1e-4])
    file = FittedFile(
        parts=Parts(device=Part(base=0.05, terms={"tokens": slow}), gap=Part(base=1e-3)),
        ranges={},
        steps=1000,
        provenance={
            "model": "llama-3-8b",
            "device": "NVIDIA H100 80GB HBM3",
            "block_size": 16,
            "kernels": "paged",
            "runs": [],
        },
        residuals={},
        noise={"decode": [0.9, 1.0, 1.2], "prefill": [0.8, 1.0, 1.5]},
        warnings=[],
    )
    place = tmp_path / "calibrations"
    place.mkdir()
    (place / f"{NAME}.json").write_text(file.model_dump_json())
    monkeypatch.setattr(packaged, "calibrations", lambda: place)
    return place


def ran(out: Path, *arguments: object) -> tuple[dict[str, Any], list[str]]:
    """The manifest of a run, and the notes that were printed."""
    ended = schedsim(*RUN, *arguments, "--out", out)
    assert ended.exit_code == 0, ended.stderr
    return manifest(out), ended.notes


def test_a_run_takes_the_calibration_of_its_model_and_gpu_and_says_so(
    folder: Path, tmp_path: Path
) -> None:
    written, notes = ran(tmp_path / "run", "--model", "llama-3-8b", "--gpu", "h100")
    (note,) = [text for text in notes if "packaged calibration" in text]
    assert f"the packaged calibration {NAME}, measured on NVIDIA H100 80GB HBM3" in note
    assert written["config"]["step_time"] == f"fitted:{NAME}"
    assert written["config"]["resolved"]["step_time"] == f"fitted:{NAME}"
    assert written["step_time"]["name"] == "fitted"
    assert written["step_time"]["parts"]["device"]["base"] == 0.05
    assert note.removeprefix("note: ") in written["notes"]
    assert written["estimator"]["name"] == "fitted", "policies are told the same times"
    named, _ = ran(tmp_path / "named", "--step-time", f"fitted:{NAME}")
    assert named["step_time"] == written["step_time"]
    steps = [(tmp_path / name / "steps.parquet").read_bytes() for name in ("run", "named")]
    assert steps[0] == steps[1]


@pytest.mark.parametrize(
    "arguments",
    [
        ("--memory", "contiguous"),
        ("--model", "llama-3.2-1b"),
        ("--gpu", "a100-80gb"),
        ("--tensor-parallel", 2),
        ("--step-time", "roofline"),
    ],
)
def test_another_engine_has_the_roofline(
    folder: Path, tmp_path: Path, arguments: tuple[object, ...]
) -> None:
    written, notes = ran(tmp_path / "run", *arguments)
    assert written["config"]["step_time"] == "roofline"
    assert not [text for text in notes if "calibration" in text]


def test_blocks_of_another_size_have_the_roofline_and_are_told(
    folder: Path, tmp_path: Path
) -> None:
    written, notes = ran(tmp_path / "run", "--block-size", 32)
    assert written["config"]["step_time"] == "roofline"
    assert [text for text in notes if f"{NAME} is one of KV blocks of 16 tokens" in text]


def test_without_one_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(packaged, "calibrations", lambda: tmp_path / "empty")
    written, notes = ran(tmp_path / "run")
    assert written["config"]["step_time"] == "roofline"
    assert not [text for text in notes if "calibration" in text]
    assert "cannot read the file" in refused(*RUN, "--step-time", f"fitted:{NAME}")


def test_a_sweep_names_what_it_took(folder: Path) -> None:
    for model, told in (("llama-3-8b", f"fitted:{NAME}"), ("llama-2-7b", "roofline")):
        row = Runner()(Point((("model", model), ("limit", 5), ("blocks", 900))))
        assert row["error"] is None
        assert row["step_time"] == told
    point = Point((("limit", 5), ("step_time.overhead_ms", 2)))
    assert point.settings().step_time == "roofline,overhead_ms=2", "a calibration has no parameters"


def test_noise_is_that_of_the_seed_and_the_same_iterations_run_ahead(
    folder: Path, tmp_path: Path
) -> None:
    flags: dict[str, tuple[object, ...]] = {
        "fast": ("--step-noise",),
        "plain": ("--step-noise", "--no-fast-forward"),
        "other": ("--step-noise", "--seed", 1),
        "calm": (),
    }
    steps = {}
    for name, given in flags.items():
        written, _ = ran(tmp_path / name, *given)
        assert written["config"]["step_noise"] is ("--step-noise" in given)
        steps[name] = (tmp_path / name / "steps.parquet").read_bytes()
    assert steps["fast"] == steps["plain"]
    assert len({steps["fast"], steps["other"], steps["calm"]}) == 3
    durations = {
        name: json.loads((tmp_path / name / "summary.json").read_text())["makespan_s"]
        for name in flags
    }
    assert durations["fast"] != durations["calm"]
    assert durations["fast"] == pytest.approx(durations["calm"], rel=0.1)


def test_noise_of_what_was_not_measured_is_refused(folder: Path) -> None:
    told = refused(*RUN, "--step-time", "roofline", "--step-noise")
    assert "--step-noise draws from the measured iterations" in told
    assert "and roofline holds none" in told


def test_repeats_may_differ_in_noise_alone(folder: Path) -> None:
    ended = schedsim(*RUN, "--step-noise", "--repeats", 3, "--policy", "vllm")
    assert ended.exit_code == 0, ended.stderr
    assert "every repeat would be the same run" in refused(*RUN, "--repeats", 3)


@pytest.mark.parametrize("name", sorted(file.name for file in packaged.calibrations().iterdir()))
def test_what_comes_with_the_package_is_what_its_name_says(name: str) -> None:
    cost = load_fitted(name.removesuffix(".json"))
    gpu, _, rest = name.removesuffix(".json").partition("-")
    assert rest == f"{cost.model}-{cost.kernels}"
    assert gpu in dict(list_gpus())
    assert gpu.upper() in cost.file.provenance["device"]
    assert cost.file.residuals["cross_validated"]["median"] < 0.05
