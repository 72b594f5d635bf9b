"""`schedsim ablate --device cpu`: cells executed on a tiny model, and simulated beside that."""

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

pytest.importorskip("torch")

from schedsim.costs.fitted_file import FittedFile, Part, Parts, Term
from schedsim.experiments.ablation import measuring, on_device
from schedsim.experiments.ablation.cells import (
    BUDDY,
    CONTINUOUS,
    EXACT,
    MAXIMUM,
    NAIVE,
    PAGED,
    STATIC,
    Cell,
    own_kernel,
)
from schedsim.experiments.calibration import Calibration
from schedsim.results.stored_run import StoredRun
from tests.cli.commands import manifest, names, refused, schedsim

CELLS = (
    own_kernel(NAIVE, MAXIMUM),
    own_kernel(STATIC, MAXIMUM),
    own_kernel(CONTINUOUS, EXACT),
    own_kernel(STATIC, PAGED),
    own_kernel(CONTINUOUS, PAGED),
    Cell(CONTINUOUS, EXACT, "paged"),
)
SMALL = (
    "ablate", "generate:azure-conv,requests=8", "--model", "tiny", "--device", "cpu",
    "--threads", 1, "--token-scale", 0.05, "--blocks", 40, "--max-model-len", 250, "--max-seqs", 4,
    "--repeats", 2,
)  # fmt: skip


@pytest.fixture(autouse=True)
def few_cells(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_device, "DEVICE_CELLS", CELLS)


def test_the_same_systems_are_executed_and_simulated_by_what_the_others_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fits: list[set[str]] = []
    calibrate = measuring.calibrate

    def watched(runs: list[StoredRun]) -> Calibration:
        fits.append({run.path.name for run in runs})
        return calibrate(runs)

    monkeypatch.setattr(measuring, "calibrate", watched)
    out = tmp_path / "out"
    ended = schedsim(*SMALL, "--out", out)
    assert ended.exit_code == 0, ended.stderr
    for heading in ("measured", "simulated", "error", "paging over exact lengths", "order: "):
        assert heading in ended.stdout
    assert "simulated with a fit to the other cells' runs" in ended.stdout
    assert names(out) == {"manifest.json", "measured.parquet", "factors.parquet", "runs"}
    table = pd.read_parquet(out / "measured.parquet")
    assert len(table) == len(CELLS) * 2
    assert (table["output_tokens_per_s"] > 0).all()
    assert (table["finished"] == table["simulated_finished"]).all()
    assert (table["preemptions"] == table["simulated_preemptions"]).all()
    assert (table["moved_tokens"] == table["simulated_moved_tokens"]).all()
    runs = names(out / "runs")
    assert len(runs) == (len(CELLS) - 1) * 2, "tuned static is naive static where no more fit"
    told = manifest(out)
    assert told["complete"] is True
    assert told["device"] == manifest(out / "runs" / sorted(runs)[0])["device"]
    _check_systems(out / "runs", runs)
    assert len(fits) == len(CELLS)
    for cell, used in zip(CELLS, fits, strict=True):
        kernels = {name.split("-seed-")[0].rsplit("-", 1)[1] for name in used}
        assert kernels == {cell.kernel}
        mine = f"{cell.scheduling.name} {cell.memory.name}".replace(",", "").replace(" ", "-")
        assert not any(name.startswith(f"{mine}-{cell.kernel}") for name in used)


def _check_systems(folder: Path, runs: set[str]) -> None:
    """Every run has the policy, memory, pool and lengths that its cell says."""
    for name in runs:
        config: dict[str, Any] = manifest(folder / name)["config"]
        assert config["blocks"] == 40
        assert config["memory"].startswith(
            {"maximum": "contiguous,reserve=max", "exact": "contiguous,reserve=predicted",
             "paged": "paged"}[name.split("-")[2 if "naive" in name else 1]]
        )  # fmt: skip
        assert config["policy"].startswith("vllm" if "continuous" in name else "static,")
        assert config["predictor"] == ("oracle" if "exact" in name else "none")
        assert config["arrivals"] == "burst"
        assert config["seed"] == int(name[-1])


def test_given_step_times_are_used_and_json_has_both_columns(tmp_path: Path) -> None:
    terms = {"tokens": Term(knots=[0.0], slopes=[1e-5])}
    file = FittedFile(
        parts=Parts(device=Part(base=0.001, terms=terms)),
        ranges={},
        steps=50,
        provenance={"model": "tiny"},
        residuals={},
        warnings=[],
    )
    path = tmp_path / "cpu.json"
    path.write_text(file.model_dump_json())
    ended = schedsim(
        *SMALL, "--repeats", 1, "--json", "--quiet",
        "--paged-kernel", f"fitted:{path}", "--contiguous-kernel", f"fitted:{path}",
    )  # fmt: skip
    assert ended.exit_code == 0, ended.stderr
    assert ended.stderr == ""
    told = json.loads(ended.stdout)
    assert told["calibrated"] is True
    assert len(told["cells"]) == len(CELLS)
    for cell in told["cells"]:
        (measured,), (simulated,) = cell["measured"], cell["simulated"]
        assert cell["simulated_over_measured"]["value"] == pytest.approx(simulated / measured)
        assert simulated > 0
    sides = [answers["measure"] for answers in told["answers"]]
    assert sides == ["measured", "simulated"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--slo", "ttft=1"), "--slo ttft=1: capacities are searched in simulation only"),
        (("--paged-kernel", "paged"), "give the step times of both kernels"),
        (("--model", "opt-13b"), "the executor runs the Llama and Qwen families"),
        (("--device", "tpu"), "unknown device 'tpu'"),
    ],
)
def test_what_does_not_go_with_a_device_is_refused(
    arguments: tuple[object, ...], told: str
) -> None:
    assert told in refused(*SMALL, *arguments)


def test_a_cell_whose_memory_serves_nobody_is_refused_before_anything_is_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(on_device, "DEVICE_CELLS", (own_kernel(CONTINUOUS, BUDDY),))
    trace, out = tmp_path / "equal.csv", tmp_path / "out"
    trace.write_text("arrival,prompt_tokens,output_tokens\n0,110,40\n")
    small = ("--blocks", 10, "--max-model-len", 160, "--requests", 1, "--token-scale", 1)
    told = refused("ablate", trace, *SMALL[2:], *small, "--out", out)
    assert "continuous / buddy / contiguous kernel: its memory never has room" in told
    assert names(out) == {"manifest.json"}
    assert manifest(out)["complete"] is False
