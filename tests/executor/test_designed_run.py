"""`schedsim calibrate` on a CPU, from designed batches to a simulation: files, never the clock."""

import json
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("scipy")

from schedsim.costs import load_fitted
from schedsim.errors import ConfigError
from schedsim.experiments.design_file import read_design
from schedsim.experiments.device_speeds import scaled
from schedsim.memory import PagedKVCache
from schedsim.request import Request
from tests.cli.commands import RESULTS, manifest, names, refused, schedsim

TINY = ("--model", "tiny", "--device", "cpu", "--threads", 1, "--block-size", 8)
SMALL = ("--max-seqs", 4, "--token-budget", 64, "--max-model-len", 256, "--blocks", 400)
ONCE = ("--passes", 1, "--time-limit", 300)


def ran(*arguments: object) -> list[str]:
    """The notes of a command that went well."""
    ended = schedsim(*arguments)
    assert ended.exit_code == 0, ended.stderr
    return ended.notes


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`cpu.json` with its picture, and the `run` that it was fitted to."""
    folder = tmp_path_factory.mktemp("designed")
    notes = ran(
        *("calibrate", *TINY, *SMALL, *ONCE, "--memory", "paged,host_blocks=100", "--seed", 3),
        *("--out", folder / "cpu.json", "--keep", folder / "run"),
    )
    (measured,) = [text for text in notes if "the design 1 times" in text]
    assert "more --passes measures more" in measured
    assert any(f"use it with  --step-time fitted:{folder / 'cpu.json'}" in text for text in notes)
    return folder


def test_the_blocks_of_a_request_lie_in_any_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tables = []
    release = PagedKVCache.release

    def noting(cache: PagedKVCache, request: Request) -> int:
        tables.append(list(cache.block_table(request)))
        return release(cache, request)

    monkeypatch.setattr(PagedKVCache, "release", noting)
    ran("calibrate", *TINY, *SMALL, *ONCE, "--no-picture", "--out", tmp_path / "cpu.json")
    steps = np.concatenate([np.diff(table) for table in tables if len(table) > 1])
    assert len(steps) > 100
    assert np.mean(np.abs(steps) == 1) < 0.5


def test_it_writes_a_file_a_picture_and_the_run(folder: Path) -> None:
    assert names(folder / "run") == RESULTS | {"design.json"}
    content = json.loads((folder / "cpu.json").read_text())
    assert content["file_version"] == 3
    assert content["padding"] == {"decodes": [], "mixed": [], "chunks": [], "attended": 0}
    regions = content["residuals"]["by_region"]
    assert {name.split(",")[0] for name in regions} == {"prefill", "decode", "mixed"}
    assert sum(figures["iterations"] for figures in regions.values()) == content["steps"]
    assert content["residuals"]["cross_validated"]["iterations"] == content["steps"]
    assert {len(quantiles) for quantiles in content["noise"].values()} == {101}
    for name in ("tokens", "decode_requests", "prefill_attention", "swapped_blocks"):
        assert content["ranges"][name][1] > 0
    if (folder / "cpu.svg").exists():
        assert (folder / "cpu.svg").read_text().startswith("<svg")


def test_the_file_says_what_was_measured(folder: Path) -> None:
    provenance, written = (
        load_fitted(str(folder / "cpu.json")).file.provenance,
        manifest(folder / "run"),
    )
    assert provenance["device"] == written["device"]
    assert provenance["model"] == "tiny"
    assert provenance["dtype"] == "float32"
    assert provenance["threads"] == 1
    assert provenance["block_size"] == 8
    assert provenance["versions"]["torch"] == torch.__version__
    (run,) = provenance["runs"]
    assert run["policy"] == "designed batches"
    assert run["memory"] == "paged,host_blocks=100"
    assert run["decision_lag"] == 0
    assert run["trace"] == "designed batches, seed 3"
    assert run["trace_sha256"] == written["trace"]["sha256"] is not None
    design = read_design(folder / "run")
    assert design is not None
    steps = pd.read_parquet(folder / "run" / "steps.parquet")
    ran = steps[(steps["prefill_tokens"] > 0) | (steps["decode_requests"] > 0)]
    assert run["iterations"] == len(ran) - len(design.left_out)
    assert (design.passes, design.batches, design.skipped) == (1, design.planned, 0)


def test_the_kept_run_gives_the_same_file(folder: Path, tmp_path: Path) -> None:
    again = tmp_path / "again.json"
    ran("calibrate", "--from", folder / "run", "--out", again, "--no-picture")
    assert again.read_bytes() == (folder / "cpu.json").read_bytes()
    assert not (tmp_path / "again.svg").exists()


def test_a_file_is_adapted_to_designed_batches(folder: Path, tmp_path: Path) -> None:
    first, out = folder / "cpu.json", tmp_path / "adapted.json"
    notes = ran(
        *("calibrate", "--adapt", first, *TINY, *SMALL, *ONCE, "--seed", 4, "--out", out),
        *("--keep", tmp_path / "run", "--no-picture"),
    )
    assert any("the design 1 times" in text for text in notes)
    before, after = (load_fitted(str(file)).file for file in (first, out))
    relative = after.provenance["adapted"]["relative_time"]
    assert after.parts.device == scaled(before.parts.device, relative)
    assert (after.parts.host, after.parts.gap) == (before.parts.host, before.parts.gap)
    runs = after.provenance["runs"]
    assert [run["trace"] for run in runs] == [f"designed batches, seed {seed}" for seed in (3, 4)]
    again = tmp_path / "again.json"
    ran("calibrate", "--adapt", first, "--from", tmp_path / "run", "--out", again, "-q")
    assert again.read_bytes() == out.read_bytes()


@pytest.mark.parametrize(
    ("options", "limit"),
    [
        ((), 240.0),
        (("--adapt", "cpu.json"), 20.0),
        (("--adapt", "cpu.json", "--time-limit", 7), 7.0),
    ],
)
def test_adapting_measures_for_a_shorter_time_unless_told(
    options: tuple[object, ...],
    limit: float,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    limits = []

    def measure(*_: object, time_limit: float, **__: object) -> NoReturn:
        limits.append(time_limit)
        raise ConfigError("enough")

    monkeypatch.setattr("schedsim.cli.calibrate.measure", measure)
    monkeypatch.chdir(folder)
    assert "enough" in refused("calibrate", *TINY, *options, "--out", tmp_path / "x.json")
    assert limits == [limit]


def test_a_simulation_runs_with_it(folder: Path, tmp_path: Path) -> None:
    notes = ran(
        *("run", "--model", "tiny", "--limit", 8, "--token-scale", 0.02, "--block-size", 8),
        *("--max-seqs", 4, "--token-budget", 64, "--step-time", f"fitted:{folder / 'cpu.json'}"),
        *("--step-noise", "--out", tmp_path / "run"),
    )
    assert not [text for text in notes if "step times" in text], "it is the engine measured"
    assert manifest(tmp_path / "run")["step_time"]["name"] == "fitted"


@pytest.mark.parametrize(
    ("memory", "blocks", "moves"),
    [
        ("contiguous,compaction=true", 60, True),
        ("buddy", 400, True),
        ("vattention,tokens_per_page=32", 400, False),
    ],
)
def test_other_memories_and_overlapped_decisions_are_measured(
    memory: str, blocks: int, moves: bool, tmp_path: Path
) -> None:
    out = tmp_path / "cpu.json"
    ran(
        *("calibrate", *TINY, *SMALL, "--blocks", blocks, *ONCE, "--memory", memory),
        *("--max-seqs", 6, "--decision-lag", 1, "--out", out, "--no-picture", "-q"),
    )
    content: dict[str, Any] = json.loads(out.read_text())
    assert content["provenance"]["runs"][0]["decision_lag"] == 1
    assert (content["ranges"]["copied_blocks"][1] > 0) == moves


def test_what_cannot_be_done_is_one_message(folder: Path, tmp_path: Path) -> None:
    out = ("--out", tmp_path / "x.json")
    assert "give either the model to measure" in refused("calibrate", *out)
    both = ("--from", folder / "run", "--model", "tiny")
    assert "give either the model to measure" in refused("calibrate", *both, *out)
    kept = ("--model", "tiny", "--keep", folder / "run")
    assert "is not empty" in refused("calibrate", *kept, *out)
    exists = ("--model", "tiny", "--out", folder / "cpu.json")
    assert "replace it with --force" in refused("calibrate", *exists)
    other = ("--adapt", folder / "cpu.json", "--model", "llama-3-8b", "--device", "cpu")
    told = refused("calibrate", *other, *out)
    assert "what to measure and the file to adapt differ in model" in told
    no_time = refused("calibrate", *TINY, *SMALL, "--time-limit", 0, *out)
    assert "iterations are too few for a fit" in no_time
    assert "designed batches: " in no_time, "no folder that is gone"
    assert "more --time-limit" in no_time
    assert "unknown model 'tinny'" in refused("calibrate", "--model", "tinny", *out)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in (folder / "run").iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    (damaged / "design.json").write_text("{")
    told = refused("calibrate", "--from", damaged, *out)
    assert "design.json cannot be read" in told
    assert not (tmp_path / "x.json").exists()
    (damaged / "design.json").unlink()
    told = refused("calibrate", "--from", damaged, *out)
    assert f"{damaged} has run designed batches and lacks design.json" in told
