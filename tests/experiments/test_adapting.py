"""A file is adapted to a device by how fast that is, and by nothing else."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schedsim.costs.fitted_file import FittedFile, Part, Parts, Term
from schedsim.costs.throttle import Throttle
from schedsim.errors import ConfigError
from schedsim.experiments.adapting import adapt
from schedsim.experiments.calibration import calibrate
from schedsim.experiments.design_file import DESIGN, DesignFile
from schedsim.experiments.device_speeds import scaled
from schedsim.results.stored_run import StoredRun, load_run
from tests.cli.commands import schedsim

SLOWER = 1.03


def line(slope: float) -> Term:
    return Term(knots=[0.0], slopes=[slope])


FILE = FittedFile(
    parts=Parts(
        host=Part(base=2e-4),
        device=Part(base=2e-3, terms={"tokens": line(2e-5), "decode_context": line(1e-8)}),
        gap=Part(base=1e-5),
    ),
    ranges={"tokens": (1.0, 2000.0)},
    steps=1000,
    provenance={"model": "llama-3-8b", "block_size": 16, "runs": [{"steps_sha256": "first"}]},
    residuals={"in_sample": {"iterations": 1000}},
    noise={"decode": [0.9, 1.1]},
    warnings=["never seen in these runs, so taken to cost nothing: swapped_blocks"],
)
THROTTLED = FILE.model_copy(update={"throttle": Throttle(window_s=0.05, slowdown=2e-5)})


def simulated(file: FittedFile, folder: Path, *options: object) -> StoredRun:
    """A run whose iterations take what the file says."""
    folder.mkdir()
    (folder / "file.json").write_text(file.model_dump_json())
    ran = schedsim(
        *("run", "--limit", 60, "--blocks", 900, "--token-scale", 0.3, *options),
        *("--step-time", f"fitted:{folder / 'file.json'}", "--out", folder / "run"),
    )
    assert ran.exit_code == 0, ran.stderr
    return load_run(folder / "run")


def slower(file: FittedFile) -> FittedFile:
    device = scaled(file.parts.device, SLOWER)
    return file.model_copy(update={"parts": file.parts.model_copy(update={"device": device})})


def changed(run: StoredRun, name: str = "run", **execution: Any) -> StoredRun:
    """The run as another one, of which `execution` is known."""
    known = {**run.execution, **execution}
    return dataclasses.replace(
        run, manifest={**run.manifest, "execution": known}, steps_sha256=f"{name} {execution}"
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> StoredRun:
    """Of a device that is slower than that of `FILE`."""
    return simulated(slower(FILE), tmp_path_factory.mktemp("runs") / "slower")


def test_the_factor_of_the_device_is_found_and_the_rest_is_kept(run: StoredRun) -> None:
    found = adapt(FILE, [run])
    assert found.file.parts.host == FILE.parts.host
    assert found.file.parts.gap == FILE.parts.gap
    device = found.file.parts.device
    assert device.base == pytest.approx(SLOWER * 2e-3, rel=1e-6)
    slopes = {name: term.slopes for name, term in device.terms.items()}
    assert slopes["tokens"] == pytest.approx([SLOWER * 2e-5], rel=1e-6)
    assert slopes["decode_context"] == pytest.approx([SLOWER * 1e-8], rel=1e-6)
    np.testing.assert_allclose(found.fitted, found.iterations.period, rtol=1e-6)
    for name in ("padding", "throttle", "ranges", "steps", "noise", "warnings"):
        assert getattr(found.file, name) == getattr(FILE, name)


def test_the_file_says_what_it_was_adapted_to_and_what_that_changed(run: StoredRun) -> None:
    found = adapt(FILE, [changed(run, device_uuid="GPU-1")])
    provenance, residuals = found.file.provenance, found.file.residuals
    assert provenance["adapted"] == {
        "relative_time": pytest.approx(SLOWER, rel=1e-6),
        "device_uuid": "GPU-1",
        "versions": run.manifest["versions"],
    }
    first, own = provenance["runs"]
    assert first == {"steps_sha256": "first"}
    assert own["trace_sha256"] == run.manifest["trace"]["sha256"]
    assert own["iterations"] == len(found.iterations)
    assert residuals["in_sample"] == FILE.residuals["in_sample"]
    now, before = residuals["adapted"], residuals["adapted"]["before"]
    assert now["iterations"] == before["iterations"] == len(found.iterations)
    assert now["p90"] < 1e-6
    # The device is most of an iteration, not all of it.
    assert 0.8 * (1 - 1 / SLOWER) < before["median"] < 1 - 1 / SLOWER
    assert before["total"] == pytest.approx(-before["median"], rel=0.2)
    kinds = residuals["adapted"]["by_kind"].values()
    assert sum(figures["iterations"] for figures in kinds) == len(found.iterations)


def test_how_a_device_slows_down_under_load_is_kept(tmp_path: Path) -> None:
    run = simulated(slower(THROTTLED), tmp_path / "run", "--policy", "sarathi", "--rate-scale", 20)
    found = adapt(THROTTLED, [run])
    assert found.file.throttle == THROTTLED.throttle
    relative = found.file.provenance["adapted"]["relative_time"]
    assert relative == pytest.approx(SLOWER, rel=1e-6)
    ignorant = adapt(FILE, [run]).file.provenance["adapted"]["relative_time"]
    assert ignorant > SLOWER * 1.02, "or no batch felt those before it"


def test_each_device_is_adapted_to_on_its_own(run: StoredRun) -> None:
    two = [changed(run, "one", device_uuid="GPU-1"), changed(run, "other", device_uuid="GPU-2")]
    with pytest.raises(ConfigError, match="of 2 devices, GPU-1, GPU-2: adapt to each on its own"):
        adapt(FILE, two)
    again = [two[0], changed(run, "other", device_uuid="GPU-1")]
    assert len(adapt(FILE, again).iterations) == 2 * len(adapt(FILE, [run]).iterations)


@pytest.mark.parametrize(
    ("name", "theirs"),
    [("model", "llama-2-7b"), ("block_size", 32), ("kernels", "contiguous"), ("device", "A100")],
)
def test_what_a_file_is_not_of_is_refused(run: StoredRun, name: str, theirs: object) -> None:
    file = FILE.model_copy(update={"provenance": {**FILE.provenance, name: theirs}})
    with pytest.raises(ConfigError, match=rf"and the file to adapt differ in {name} \("):
        adapt(file, [run])


def test_an_engine_that_pads_otherwise_is_refused(run: StoredRun) -> None:
    sizes: list[int] = []
    unpadded = {"decodes": sizes, "mixed": sizes, "chunks": sizes}  # written before `attended`
    adapt(FILE, [changed(run, padding=unpadded)])
    with pytest.raises(ConfigError, match="differ in padding"):
        adapt(FILE, [changed(run, padding={**unpadded, "decodes": [1, 2, 4]})])


def test_other_chips_and_versions_may_be_adapted_to(run: StoredRun) -> None:
    provenance = {**FILE.provenance, "versions": {"torch": "0"}}
    file = FILE.model_copy(update={"provenance": provenance})
    found = adapt(file, [changed(run, device_uuid="GPU-2")])
    assert found.file.provenance["versions"] == {"torch": "0"}


def test_an_adapted_file_is_not_adapted_again(run: StoredRun) -> None:
    adapted = adapt(FILE, [run]).file
    with pytest.raises(ConfigError, match="adapted to a device already"):
        adapt(adapted, [run])


def test_runs_of_several_devices_are_fitted_to_their_mean(run: StoredRun, tmp_path: Path) -> None:
    pytest.importorskip("scipy")
    fast = simulated(FILE, tmp_path / "fast", "--rate-scale", 2)
    runs = [changed(fast, device_uuid="GPU-1"), changed(run, device_uuid="GPU-2")]
    file = calibrate(runs).file
    relative = {"GPU-1": SLOWER**-0.5, "GPU-2": SLOWER**0.5}
    assert file.provenance["relative_times"] == pytest.approx(relative, rel=5e-4)
    assert file.residuals["in_sample"]["p90"] < 1e-3
    assert calibrate(runs[:1]).file.provenance["relative_times"] is None


def test_a_device_none_of_whose_iterations_count_is_none(run: StoredRun, tmp_path: Path) -> None:
    """Of a design that was cut off at once there is a run, and no measurement."""
    nothing = DesignFile(
        seed=0, passes=0, batches=0, planned=9, skipped=0, left_out=list(range(run.steps.num_rows))
    )
    (tmp_path / DESIGN).write_text(nothing.model_dump_json())
    empty = dataclasses.replace(changed(run, "empty", device_uuid="GPU-2"), path=tmp_path)
    runs = [changed(run, device_uuid="GPU-1"), empty]
    assert adapt(FILE, runs).file.provenance["adapted"]["device_uuid"] == "GPU-1"
    file = calibrate(runs).file
    assert file.provenance["relative_times"] is None
    assert [seen["iterations"] for seen in file.provenance["runs"]] == [file.steps, 0]
