"""`schedsim calibrate --adapt` on simulations that pretend to be runs of a slower device."""

import json
import re
from pathlib import Path

import pytest

from schedsim.costs import packaged
from schedsim.costs.fitted_file import FittedFile
from schedsim.experiments.device_speeds import scaled
from schedsim.report.figures import is_installed
from tests.cli.commands import Ended, refused, schedsim

pytest.importorskip("scipy")

SLOWER = 1.03
RUN = ("run", "--limit", 60, "--blocks", 900, "--decisions")


def ran(*arguments: object) -> Ended:
    ended = schedsim(*arguments)
    assert ended.exit_code == 0, ended.stderr
    return ended


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`first.json`, fitted to the run `light`; `slow` and `other`, runs of a slower device, of the
    same model and of another."""
    folder = tmp_path_factory.mktemp("adapt")
    ran(*RUN, "--step-time", "linear:vidur-closed-form", "--out", folder / "light")
    first = folder / "first.json"
    ran("calibrate", "--from", folder / "light", "--out", first, "--no-picture")
    file = FittedFile.model_validate_json(first.read_text())
    parts = file.parts.model_copy(update={"device": scaled(file.parts.device, SLOWER)})
    (folder / "slow.json").write_text(file.model_copy(update={"parts": parts}).model_dump_json())
    slow = ("--step-time", f"fitted:{folder / 'slow.json'}", "--rate-scale", 2)
    ran(*RUN, *slow, "--out", folder / "slow")
    ran(*RUN, *slow, "--model", "llama-2-7b", "--out", folder / "other")
    return folder


def adapt(folder: Path, *options: object) -> tuple[object, ...]:
    return ("calibrate", "--adapt", folder / "first.json", "--from", folder / "slow", *options)


def test_it_says_by_what_factor_the_device_differs_and_how_far_off_the_files_are(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "adapted.json"
    ended = ran(*adapt(folder, "--out", out))
    assert f"this device takes 1.0300 times as long as that of {folder / 'first.json'}" in (
        ended.stdout
    )
    was, now = (
        next(line for line in ended.stdout.splitlines() if line.startswith(start))
        for start in ("as it was", "adapted")
    )
    assert re.findall(r"(\S+) %", was) == ["2.91", "2.91", "-2.91"]
    assert re.findall(r"(\S+) %", now) == ["0.00", "0.00", "+0.00"]
    assert "decode only" in ended.stdout
    assert ended.notes[-1].endswith(f"wrote {out}; use it with  --step-time fitted:{out}")
    assert not [text for text in ended.notes if "these runs" in text], "that is of other runs"
    picture = tmp_path / "adapted.svg"
    assert picture.exists() == is_installed()
    if is_installed():
        assert picture.read_text().startswith("<svg")


def test_a_simulation_with_the_adapted_file_is_the_run_of_that_device(
    folder: Path, tmp_path: Path
) -> None:
    out = tmp_path / "adapted.json"
    ended = ran(*adapt(folder, "--out", out, "--no-picture", "--json"))
    assert ended.stdout == out.read_text()
    for file, median, saw in ((out, 0.0, "run"), (folder / "first.json", 1 - 1 / SLOWER, "trace")):
        held = ran("validate", "--from", folder / "slow", "--calibration", file, "--json")
        (cell,) = json.loads(held.stdout)["cells"]
        assert cell["calibration_saw"] == saw
        assert cell["steps"]["median"] == pytest.approx(median, abs=1e-6)


def test_a_packaged_file_is_adapted_by_its_name(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(packaged, "calibrations", lambda: folder)
    by_name, by_path = tmp_path / "name.json", tmp_path / "path.json"
    run = ("--from", folder / "slow", "--no-picture")
    ran("calibrate", "--adapt", "first", *run, "--out", by_name)
    ran("calibrate", "--adapt", folder / "first.json", *run, "--out", by_path)
    assert by_name.read_bytes() == by_path.read_bytes()


def test_what_cannot_be_adapted_is_one_message(folder: Path, tmp_path: Path) -> None:
    out, first = tmp_path / "out.json", folder / "first.json"
    before = first.read_bytes()
    for path in (first, folder / ".." / folder.name / "first.json"):
        assert "is the file to adapt" in refused(*adapt(folder, "--out", path, "--force"))
    assert first.read_bytes() == before
    told = refused("calibrate", "--adapt", "nowhere.json", "--from", folder / "slow", "--out", out)
    assert "--adapt nowhere.json: cannot read the file" in told
    told = refused("calibrate", "--adapt", first, "--from", folder / "other", "--out", out)
    assert "differ in model ('llama-2-7b' and 'llama-3-8b')" in told
    assert "give either the model to measure" in refused(
        "calibrate", "--adapt", first, "--out", out
    )
    told = refused(*adapt(folder, "--time-limit", 20, "--out", out))
    assert "--time-limit is for measuring" in told
    assert not out.exists()
    ran(*adapt(folder, "--out", out, "--no-picture"))
    again = ("calibrate", "--adapt", out, "--from", folder / "slow", "--out", tmp_path / "x.json")
    assert "adapted to a device already" in refused(*again)


def test_runs_of_two_devices_are_fitted_to_their_mean_and_it_is_said(
    folder: Path, tmp_path: Path
) -> None:
    runs = []
    for name, uuid in (("light", "GPU-1"), ("slow", "GPU-2")):
        run = tmp_path / name
        run.mkdir()
        for file in (folder / name).iterdir():
            (run / file.name).write_bytes(file.read_bytes())
        manifest = json.loads((run / "manifest.json").read_text())
        manifest["execution"] = {"device_uuid": uuid}
        (run / "manifest.json").write_text(json.dumps(manifest))
        runs += ["--from", run]
    ended = ran("calibrate", *runs, "--out", tmp_path / "both.json", "--no-picture")
    assert (
        "note: fitted to the mean of 2 devices: GPU-1 takes 0.9853 times as long, "
        "GPU-2 takes 1.0150 times as long"
    ) in ended.notes
    told = refused(
        *("calibrate", "--adapt", folder / "first.json", *runs, "--out", tmp_path / "adapted.json")
    )
    assert "the runs are of 2 devices, GPU-1, GPU-2: adapt to each on its own" in told
