"""`recorded:`: a run replayed with its own times decides the same, to the last block and byte."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from schedsim.costs import load_recorded
from tests.cli.commands import refused, schedsim

PRESSURE = (
    "--limit",
    120,
    "--rate-scale",
    4,
    "--blocks",
    700,
    "--max-model-len",
    4096,
    "--decisions",
)
RUNS: dict[str, tuple[object, ...]] = {
    "vllm": PRESSURE,
    "vllm-v0": PRESSURE,
    "sarathi": PRESSURE,
    "static": (*PRESSURE, "--max-output", "const:600"),
    "static,batch_size=16,max_wait=2.5": (
        *PRESSURE[:-1],
        "--max-output",
        "const:200",
        "--decisions",
    ),
    "vllm,watermark=0.05": (*PRESSURE, "--concurrency", 24),
}
LAGS = (
    ("--decision-lag", 0),
    ("--decision-lag", 1),
    ("--decision-lag", 1, "--max-output", "factor:2"),
)


def run(out: Path, *arguments: object) -> Path:
    ended = schedsim("run", "-q", *arguments, "--out", out)
    assert ended.exit_code == 0, ended.stderr
    return out


def arguments_of(policy: str) -> list[object]:
    given = list(RUNS[policy])
    if "--concurrency" in given:
        place = given.index("--rate-scale")
        del given[place : place + 2]
    return ["--policy", policy, *given]


@pytest.mark.parametrize("lag", LAGS)
@pytest.mark.parametrize("policy", RUNS)
def test_a_replay_gives_the_same_bytes(
    policy: str, lag: tuple[object, ...], tmp_path: Path
) -> None:
    arguments = [*arguments_of(policy), *lag]
    first = run(tmp_path / "first", *arguments)
    again = run(tmp_path / "again", *arguments, "--step-time", f"recorded:{first}")
    for name in ("requests.parquet", "steps.parquet", "summary.json"):
        assert (first / name).read_bytes() == (again / name).read_bytes(), name
    mine, theirs = (decisions(directory) for directory in (first, again))
    assert mine == theirs
    assert len(mine) > 100


def decisions(directory: Path) -> list[dict[str, Any]]:
    lines = gzip.decompress((directory / "decisions.jsonl.gz").read_bytes()).splitlines()
    return [json.loads(line) for line in lines[1:]]


def test_idle_looks_are_replayed(tmp_path: Path) -> None:
    first = run(tmp_path / "first", *arguments_of("static,batch_size=16,max_wait=2.5"))
    recorded = load_recorded(str(first))
    assert len(recorded.idle_looks) > 10
    assert recorded.complete
    assert not recorded.polled


def test_another_policy_ends_at_the_first_iteration_that_differs(tmp_path: Path) -> None:
    first = run(tmp_path / "first", "--limit", 60, "--rate-scale", 8)
    out = tmp_path / "again"
    ended = schedsim(
        *("run", "-q", "--limit", 60, "--rate-scale", 8, "--policy", "sarathi"),
        *("--step-time", f"recorded:{first}", "--out", out),
    )
    assert ended.exit_code == 2
    assert "of the replay: 512 prefill tokens" in ended.stderr
    assert "the recorded run: " in ended.stderr
    assert f"needs the trace, policy and settings of {first}" in ended.stderr
    assert f"what had finished is kept in {out}" in ended.stderr
    assert json.loads((out / "manifest.json").read_text())["complete"] is False


def test_a_run_that_was_stopped_is_replayed_to_where_it_stopped(tmp_path: Path) -> None:
    policies = Path(__file__).parent / "cli" / "bad_policies.py"
    arguments = ("--limit", 50, "--policy", f"{policies}:RaisesInTheMiddle", "--decisions")
    ended = schedsim("run", "-q", *arguments, "--out", tmp_path / "first")
    assert ended.exit_code == 2
    again = tmp_path / "again"
    replayed = schedsim(
        "run", "-q", *arguments, "--step-time", f"recorded:{tmp_path / 'first'}", "--out", again
    )
    assert replayed.exit_code == 0, replayed.stderr
    steps = [tmp_path / name / "steps.parquet" for name in ("first", "again")]
    assert steps[0].read_bytes() == steps[1].read_bytes()
    assert decisions(tmp_path / "first") == decisions(again)
    (note,) = [
        n for n in json.loads((again / "manifest.json").read_text())["notes"] if "stops" in n
    ]
    assert note.endswith("iterations, and so does this one")


def test_what_is_no_run_is_told(tmp_path: Path) -> None:
    assert "write recorded:RUN_DIR" in refused("run", "--step-time", "recorded:")
    missing = refused("run", "--step-time", f"recorded:{tmp_path}")
    assert "manifest.json is not the manifest of a run" in missing
    (tmp_path / "manifest.json").write_text("{}")
    assert "steps.parquet cannot be read" in refused("run", "--step-time", f"recorded:{tmp_path}")
