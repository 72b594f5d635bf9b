"""`schedsim ablate`: what it prints, writes and refuses."""

import json
from pathlib import Path
from typing import Any

import pytest

from schedsim.costs.fitted_file import FittedFile, Part, Parts, Term
from schedsim.experiments.ablation import running
from schedsim.experiments.ablation.cells import BUDDY, CONTINUOUS, MAXIMUM, NAIVE, PAGED, own_kernel
from tests.cli.commands import manifest, names, refused, schedsim

SMALL = (
    "ablate", "generate:sharegpt,requests=10", "--repeats", 2, "--token-scale", 0.1,
    "--blocks", 60, "--max-model-len", 300, "--max-seqs", 8,
)  # fmt: skip


def test_all_tables_are_printed_and_everything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    few = (own_kernel(NAIVE, MAXIMUM), own_kernel(CONTINUOUS, PAGED))
    monkeypatch.setattr(running, "CAPACITY_CELLS", few)
    out = tmp_path / "out"
    ended = schedsim(*SMALL, "--slo", "ttft=1,tpot=0.1", "--out", out)
    assert ended.exit_code == 0, ended.stderr
    lines = ended.stdout.splitlines()
    rows = [line for line in lines if line.startswith("continuous")]
    assert sum(" * " in line for line in lines) == 5, "a counterfactual under each scheduling"
    assert any("paged" in row and " * " in row for row in rows)
    for heading in ("one burst", "memory use", "capacity", "burst: one over the other"):
        assert heading in ended.stdout
    assert "counterfactual: a contiguous kernel cannot read paged memory" in ended.stdout
    assert "paging on top of continuous batching" in ended.stdout
    files = {"manifest.json", "cells.parquet", "factors.parquet"}
    pytest.importorskip("altair")
    assert names(out) == files | {"waterfall.svg"}
    figure = (out / "waterfall.svg").read_text()
    for label in ("static, naive, maximum", "continuous batching", "paging", "paged kernel", "× "):
        assert label in figure
    assert manifest(out)["trace"] == "generate:sharegpt,requests=10"
    assert ended.notes[-1] == f"note: results in {out}"


def test_json_has_what_the_tables_show() -> None:
    ended = schedsim(*SMALL, "--json", "--quiet")
    assert ended.exit_code == 0
    assert ended.stderr == ""
    told: dict[str, Any] = json.loads(ended.stdout)
    assert len(told["cells"]) == 50
    assert sum(cell["counterfactual"] for cell in told["cells"]) == 5
    assert told["pool"]["blocks"] == 60
    (burst,) = told["answers"]
    naive = burst["factors"][0]
    product = 1.0
    for change in naive["changes"]:
        product *= change["value"]
    assert product == pytest.approx(naive["whole"]["value"])
    static = [c for c in told["cells"] if c["scheduling"] == "static" and c["kernel"] == "paged"]
    assert all(len(cell["tried"]) > 1 and cell["batch_size"] for cell in static)


def test_a_fitted_step_time_for_each_kernel_is_used(tmp_path: Path) -> None:
    paths = {}
    for kernel, context in (("paged", 2e-8), ("contiguous", 1e-8)):
        slopes = {"prefill_tokens": 1e-5, "decode_context": context}
        terms = {name: Term(knots=[0.0], slopes=[slope]) for name, slope in slopes.items()}
        file = FittedFile(
            parts=Parts(device=Part(base=0.005, terms=terms)),
            ranges={"prefill_tokens": (0, 10)},
            steps=100,
            provenance={"model": "llama-3-8b", "block_size": 16, "kernels": "paged"},
            residuals={},
            warnings=[],
        )
        path = tmp_path / f"{kernel}.json"
        path.write_text(file.model_dump_json())
        paths[kernel] = f"fitted:{path}"
    ended = schedsim(
        *SMALL, "--paged-kernel", paths["paged"], "--contiguous-kernel", paths["contiguous"],
        "--json",
    )  # fmt: skip
    assert ended.exit_code == 0, ended.stderr
    told = json.loads(ended.stdout)
    rate = {
        (c["scheduling"], c["memory"], c["kernel"]): c["output_tokens_per_s"][0]
        for c in told["cells"]
    }
    for memory in ("maximum", "paged"):
        assert rate["continuous", memory, "contiguous"] > rate["continuous", memory, "paged"]
    assert any("go beyond what was measured" in note for note in ended.notes)
    (wrong,) = [note for note in ended.notes if note.endswith("was fitted to paged kernels")]
    assert wrong.startswith("note: --contiguous-kernel fitted:")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("nowhere.csv",), "trace 'nowhere.csv': no such file; give a file, 'sample', or generate"),
        (("generate:azure-conv,requests=0",), "requests must be at least 1"),
        (("--repeats", 0), "--repeats 0 must be at least 1"),
        (("--blocks", 10, "--max-model-len", 161), "a pool of 10 blocks does not hold one"),
        (("--noise", "lognormal,sigma=x"), "predictor 'lognormal': sigma='x'"),
        (("--paged-kernel", "fitted:none.json"), "--paged-kernel: --step-time fitted:none.json: "),
        (
            ("--contiguous-kernel", "libary"),
            "--contiguous-kernel: unknown step-time model 'libary'",
        ),
        (("generate:sharegpt,requests=9", "--requests", 5), "--requests 5 is for a trace file"),
        (("--blocks", 3), "raise --max-model-len or --blocks"),
        (("--slo", "ttft"), "--slo 'ttft'"),
        (("--model", "llama"), "unknown model 'llama'"),
        (("--threads", 2), "--threads 2 is for --device cpu"),
        (("--seed", -1), "seed=-1 must be at least 0"),
    ],
)
def test_a_wrong_option_is_one_message(arguments: tuple[object, ...], told: str) -> None:
    trace = () if str(arguments[0]).startswith(("nowhere", "generate")) else ("sample",)
    assert told in refused("ablate", *trace, *arguments)


def test_a_directory_in_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "there").touch()
    assert "not empty" in refused("ablate", "--out", tmp_path)


def test_a_pool_in_which_buddy_has_no_chunk_for_some_is_told() -> None:
    ended = schedsim(
        "ablate", "generate:azure-conv,requests=12", "--repeats", 1, "--blocks", 100, "--json"
    )
    assert ended.exit_code == 0
    (note,) = [text for text in ended.notes if "never has room for" in text]
    assert note.startswith("note: memory 'buddy' never has room for")


def test_a_memory_that_serves_nobody_is_no_rate_and_no_ratio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """150 tokens need ten blocks: buddy has no chunk of sixteen in a pool of ten."""
    monkeypatch.setattr(running, "CAPACITY_CELLS", (own_kernel(CONTINUOUS, BUDDY),))
    trace = tmp_path / "equal.csv"
    rows = [f"{number},110,40" for number in range(3)]
    trace.write_text("\n".join(["arrival,prompt_tokens,output_tokens", *rows]))
    small = ("--requests", 4, "--repeats", 1, "--blocks", 10, "--max-model-len", 160)
    ended = schedsim("ablate", trace, *small, "--slo", "ttft=2", "--out", tmp_path / "out")
    assert ended.exit_code == 0, ended.stderr
    buddy = [line for line in ended.stdout.splitlines() if "buddy" in line]
    assert sum(line.count("nothing served") for line in buddy) == 2 * 5
    assert sum("below the least rate tried in 1 of 1 repeats" in line for line in buddy) == 1
    assert not any("buddy over" in line for line in buddy)
    assert any("note: memory 'buddy' never has room for 4" in note for note in ended.notes)
    assert manifest(tmp_path / "out")["complete"] is True


def test_all_files_are_there_before_anything_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the output goes to `head`, which leaves after some lines."""
    pytest.importorskip("altair")

    def stop(ablated: running.Ablated) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("schedsim.cli.ablate.print_ablation", stop)
    assert schedsim(*SMALL, "--repeats", 1, "--out", tmp_path / "out").exit_code == 130
    assert "waterfall.svg" in names(tmp_path / "out")
