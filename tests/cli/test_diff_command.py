"""`schedsim diff` on runs: exit codes, what is printed, what is refused."""

import gzip
import json
from pathlib import Path

import pytest

from tests.cli.commands import refused, schedsim


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of the sample: twice `plain`, one with a `larger` block size, one `without` a record."""
    folder = tmp_path_factory.mktemp("runs")
    options = {
        "plain": ("--decisions",),
        "again": ("--decisions",),
        "larger": ("--decisions", "--block-size", 32),
        "without": (),
    }
    for name, given in options.items():
        done = schedsim("run", "--limit", 20, "--blocks", 900, *given, "--out", folder / name)
        assert done.exit_code == 0, done.stderr
    return folder


def test_equal_runs_end_with_0_and_counts(runs: Path) -> None:
    ended = schedsim("diff", runs / "plain", runs / "again")
    assert ended.exit_code == 0
    assert ended.stdout.endswith(" preemptions\n")
    assert "iterations, the same: " in ended.stdout
    assert ended.stderr == ""


def test_the_first_difference_is_shown_with_names_and_policies(runs: Path) -> None:
    ended = schedsim("diff", runs / "plain", runs / "larger")
    assert ended.exit_code == 1
    assert "the first difference is in iteration 0" in ended.stdout
    for text in ("plain", "larger", "VLLM(", "blocks r0", "settings that differ", "block_size"):
        assert text in ended.stdout
    assert ended.stderr == ""


def test_json_holds_the_same(runs: Path) -> None:
    same = json.loads(schedsim("diff", runs / "plain", runs / "again", "--json").stdout)
    assert same["same"] is True
    assert same["difference"] is None
    ended = schedsim("diff", runs / "plain", runs / "larger", "--json")
    assert ended.exit_code == 1
    printed = json.loads(ended.stdout)
    assert printed["difference"]["iteration"] == 0
    assert {"field": "block_size", "first": "16", "second": "32"} in printed["settings"]


def test_a_run_and_its_record_as_a_file_are_the_same(runs: Path, tmp_path: Path) -> None:
    record = runs / "plain" / "decisions.jsonl.gz"
    plain = tmp_path / "plain.jsonl"
    plain.write_bytes(gzip.decompress(record.read_bytes()))
    assert schedsim("diff", record, plain).exit_code == 0


def test_what_is_no_record_is_one_message(runs: Path, tmp_path: Path) -> None:
    plain = runs / "plain"
    assert "run it again with --decisions" in refused("diff", plain, runs / "without")
    assert "name one of the runs in it: again, larger" in refused("diff", plain, runs)
    assert "no such run or file" in refused("diff", tmp_path / "nowhere", plain)
    assert "is not a run directory" in refused("diff", tmp_path, plain)
    summary = runs / "plain" / "summary.json"
    assert "summary.json, line 1: no JSON" in refused("diff", plain, summary)
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    assert "line 1: no 'meta'" in refused("diff", empty, plain)


def test_a_damaged_record_is_one_message(runs: Path, tmp_path: Path) -> None:
    stored = (runs / "plain" / "decisions.jsonl.gz").read_bytes()
    cut, flipped = tmp_path / "cut.jsonl.gz", tmp_path / "flipped.jsonl.gz"
    cut.write_bytes(stored[: len(stored) // 2])
    flipped.write_bytes(stored[:40] + bytes([stored[40] ^ 255]) + stored[41:])
    for path in (cut, flipped):
        ended = schedsim("diff", runs / "plain", path)
        assert ended.exit_code == 2, ended.stdout
        assert str(path) in ended.stderr
