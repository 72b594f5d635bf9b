"""The built wheel holds every package and its data, and works away from the checkout."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("schedsim", "executor", "kernels", "traces")
FILES = ("pyproject.toml", "README.md", "LICENSE")
DATA = {
    "schedsim/py.typed",
    "schedsim/costs/models.toml",
    "schedsim/costs/gpus.toml",
    "schedsim/traces/sample.parquet",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy of the sources, so that no build folder lands in the checkout."""
    setuptools = pytest.importorskip("setuptools", reason="setuptools is not installed")
    if int(setuptools.__version__.split(".")[0]) < 77:
        pytest.skip(f"setuptools {setuptools.__version__} is older than the build needs")
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in FOLDERS:
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in FILES:
        shutil.copy(ROOT / name, source)
    options = ["--no-build-isolation", "--no-deps", "--no-index", "--disable-pip-version-check"]
    built = subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "-q", *options, "-w", folder, source],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def run_outside(unpacked: Path, folder: Path, code: str) -> str:
    """Run `code` where only the unpacked wheel provides schedsim; its output."""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(unpacked)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_holds_every_module_and_its_data(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    expected = set(DATA)
    for name in FOLDERS:
        prefix = "" if name == "schedsim" else "schedsim/"
        for path in (ROOT / name).rglob("*.py"):
            expected.add(prefix + path.relative_to(ROOT).as_posix())
    assert expected <= held
    tops = {name.split("/")[0] for name in held}
    assert tops == {"schedsim", next(top for top in tops if top.endswith(".dist-info"))}


def test_every_package_is_imported_from_the_wheel(unpacked: Path, tmp_path: Path) -> None:
    code = (
        "import schedsim, schedsim.traces, schedsim.executor, schedsim.kernels\n"
        "import schedsim.traces.generators, schedsim.traces.readers\n"
        "for module in (schedsim, schedsim.traces, schedsim.executor, schedsim.kernels):\n"
        "    print(module.__file__)\n"
    )
    for place in run_outside(unpacked, tmp_path, code).splitlines():
        assert Path(place).is_relative_to(unpacked)


def test_a_run_finds_the_data_of_the_wheel(unpacked: Path, tmp_path: Path) -> None:
    code = (
        "import schedsim\n"
        "from schedsim.costs import list_gpus, list_models\n"
        "assert list_models() and list_gpus()\n"
        "result = schedsim.simulate(schedsim.sample_trace(), 'vllm', limit=50)\n"
        "print(result.summary['requests']['finished'])\n"
    )
    assert run_outside(unpacked, tmp_path, code) == "50\n"


def test_the_command_of_the_wheel_runs(unpacked: Path, tmp_path: Path) -> None:
    code = "import sys; sys.argv = ['schedsim', 'gpus']; from schedsim.cli import main; main()"
    assert "h100" in run_outside(unpacked, tmp_path, code)
