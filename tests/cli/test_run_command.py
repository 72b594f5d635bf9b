"""`schedsim run` and the lists, as a new user types them: output, files, repeatability."""

import gzip
import json
from importlib.metadata import version
from pathlib import Path

import pandas as pd
import pytest

from schedsim.memory import MANAGERS
from schedsim.policies import POLICIES
from tests.cli.commands import RESULTS, Ended, manifest, names, process, schedsim, summary

LENGTHS = "num_prefill_tokens,num_decode_tokens\n" + "100,20\n300,5\n50,40\n" * 10


def ran(*arguments: object) -> Ended:
    ended = schedsim("run", *arguments)
    assert ended.exit_code == 0, ended.stderr
    return ended


@pytest.fixture
def lengths(tmp_path: Path) -> Path:
    file = tmp_path / "lengths.csv"
    file.write_text(LENGTHS)
    return file


def test_without_a_trace_it_runs_the_bundled_sample(tmp_path: Path) -> None:
    ended = ran("--out", tmp_path / "out")
    assert "vllm" in ended.stdout
    assert "TTFT p99 (s)" in ended.stdout
    assert names(tmp_path / "out") == RESULTS
    written = manifest(tmp_path / "out")
    assert written["trace"]["name"] == "sample.parquet"
    assert written["config"]["policy"] == "vllm"
    assert written["complete"] is True
    assert summary(tmp_path / "out")["requests"]["finished"] > 2900


def test_the_tables_and_the_summary_agree(tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran("--limit", 50, "--out", out)
    requests = pd.read_parquet(out / "requests.parquet")
    steps = pd.read_parquet(out / "steps.parquet")
    assert len(requests) == 50
    assert (requests["status"] == "finished").sum() == summary(out)["requests"]["finished"]
    assert steps["end"].is_monotonic_increasing


def test_json_goes_to_stdout_alone() -> None:
    ended = ran("--limit", 20, "--policy", "vllm", "--policy", "static", "--json")
    printed = json.loads(ended.stdout)
    assert list(printed) == ["vllm", "static"]
    assert printed["vllm"]["requests"]["finished"] == 20


def test_quiet_prints_the_table_and_nothing_else() -> None:
    ended = ran("--limit", 20, "--quiet")
    assert ended.stderr == ""
    assert "requests finished" in ended.stdout
    loud = ran("--limit", 20)
    assert loud.notes
    assert len(loud.notes) == len(loud.stderr.splitlines())


def test_several_policies_stand_side_by_side_in_folders_of_their_own(tmp_path: Path) -> None:
    out = tmp_path / "out"
    specs = ("vllm", "sarathi,chunk_size=256", "vllm-v0", "static", "vllm")
    options = [part for spec in specs for part in ("--policy", spec)]
    ended = ran("--limit", 30, *options, "--out", out)
    folders = {"vllm", "sarathi,chunk_size=256", "vllm-v0", "static", "vllm-2"}
    assert names(out) == folders
    header = ended.stdout.splitlines()[0]
    assert all(folder in header for folder in folders)
    for folder in folders:
        assert names(out / folder) == RESULTS
        assert manifest(out / folder)["complete"] is True


def test_decisions_hold_a_record_for_each_iteration(tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran("--limit", 20, "--decisions", "--out", out)
    lines = gzip.decompress((out / "decisions.jsonl.gz").read_bytes()).decode().splitlines()
    first, *records = map(json.loads, lines)
    assert first["meta"]["block_size"] == 16
    assert len(records) == len(pd.read_parquet(out / "steps.parquet"))
    assert [record["step"] for record in records] == list(range(len(records)))


def test_the_timeline_is_a_chrome_trace(tmp_path: Path) -> None:
    out = tmp_path / "out"
    ran("--limit", 20, "--timeline", "--out", out)
    loaded = json.loads(gzip.decompress((out / "timeline.json.gz").read_bytes()))
    assert loaded["traceEvents"]


def test_check_stands_alone_or_with_a_number() -> None:
    plain = ran("--limit", 8, "--json", "-q").stdout
    assert ran("--limit", 8, "--json", "-q", "--check").stdout == plain
    assert ran("--limit", 8, "--json", "-q", "--check=7").stdout == plain
    assert ran("--check", 7, "--limit", 8, "--json", "-q").stdout == plain


def test_version_is_that_of_the_package() -> None:
    assert schedsim("--version").stdout == f"schedsim {version('schedsim')}\n"


def test_objectives_give_goodput(tmp_path: Path) -> None:
    ended = ran("--limit", 30, "--slo", "ttft=0.5,tpot=0.05", "--out", tmp_path / "out")
    assert "goodput (share)" in ended.stdout
    assert summary(tmp_path / "out")["goodput"]["whole"]["share"] == 1.0
    assert "goodput" not in ran("--limit", 30).stdout


def test_concurrency_is_a_closed_loop(tmp_path: Path, lengths: Path) -> None:
    ran(lengths, "--concurrency", 4, "--out", tmp_path / "out")
    steps = pd.read_parquet(tmp_path / "out" / "steps.parquet")
    assert (steps["running"] + steps["waiting"]).max() == 4
    assert summary(tmp_path / "out")["requests"]["finished"] == 30


def test_lengths_take_arrivals_and_the_seed_decides(tmp_path: Path, lengths: Path) -> None:
    def printed(seed: int) -> str:
        return ran(lengths, "--arrivals", "poisson:rate=5", "--seed", seed, "--json", "-q").stdout

    assert printed(1) == printed(1)
    assert printed(1) != printed(2)


def test_a_limit_beyond_the_trace_takes_all_of_it(lengths: Path) -> None:
    ended = ran(lengths, "--concurrency", 2, "--limit", 10_000, "--json")
    assert json.loads(ended.stdout)["vllm"]["requests"]["finished"] == 30


def test_twice_the_rate_halves_the_arrivals(tmp_path: Path) -> None:
    for scale in (1, 2):
        ran("--limit", 30, "--rate-scale", scale, "--out", tmp_path / str(scale))
    once, twice = (
        pd.read_parquet(tmp_path / scale / "requests.parquet")["arrival"] for scale in "12"
    )
    pd.testing.assert_series_equal(once / 2, twice)


def test_two_processes_write_the_same_bytes(tmp_path: Path) -> None:
    arguments = "run --policy vllm --policy static --limit 25 --arrivals gamma:rate=6,cv=2"
    rest = "--predictor lognormal,sigma=1 --slo ttft=0.5 --decisions --timeline -q --out out"
    folders = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        ended = process(*arguments.split(), *rest.split(), folder=tmp_path / name)
        assert ended.exit_code == 0, ended.stderr
        folders.append(tmp_path / name / "out")
    first, second = folders
    compared = [path for path in sorted(first.rglob("*.*")) if path.name != "manifest.json"]
    assert len(compared) == 2 * 5
    for path in compared:
        assert path.read_bytes() == (second / path.relative_to(first)).read_bytes(), path.name


def test_a_note_says_how_many_outputs_a_limit_cuts(lengths: Path) -> None:
    ended = ran(lengths, "--concurrency", 2, "--max-output", "const:10")
    assert any("20 outputs end at their output limit" in note for note in ended.notes)


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ("memories", [*MANAGERS, "reserve=limit", "--memory name"]),
        ("policies", [*POLICIES, "watermark", "file.py:Class"]),
        ("models", ["opt-13b", "llama-2-7b", "llama-3-8b", "llama-3.2-1b", "qwen3-32b"]),
        ("gpus", ["h100", "h200", "a100-40gb", "a100-80gb", "l40s", "rtx4090"]),
        ("doctor", ["schedsim", "Python", "numpy", "simulation", "CUDA device"]),
    ],
)
def test_lists_have_a_line_each(command: str, shown: list[str]) -> None:
    ended = schedsim(command)
    assert ended.exit_code == 0
    assert ended.stderr == ""
    for name in shown:
        lines = [line for line in ended.stdout.splitlines() if name in line]
        assert lines, name


@pytest.mark.parametrize(
    ("command", "shown"),
    [
        ((), ["run", "execute", "policies", "models", "gpus", "doctor", "trace"]),
        (("run",), ["Examples", "schedsim run trace.csv.gz --policy vllm", "--slo", "--check"]),
        (("policies",), ["List"]),
        (("models",), ["List"]),
        (("gpus",), ["List"]),
        (("doctor",), ["Say what this machine can run"]),
        (("trace",), ["info", "head", "convert", "generate"]),
    ],
)
def test_help_says_what_there_is(command: tuple[str, ...], shown: list[str]) -> None:
    for flag in ("--help", "-h"):
        ended = schedsim(*command, flag)
        assert ended.exit_code == 0
        assert ended.stderr == ""
        for text in shown:
            assert text in ended.stdout


def test_a_token_scale_scales_the_trace_of_the_run(tmp_path: Path, lengths: Path) -> None:
    ran(
        lengths,
        "--concurrency",
        4,
        "--token-scale",
        0.1,
        "--model",
        "tiny",
        "--out",
        tmp_path / "out",
    )
    requests = pd.read_parquet(tmp_path / "out" / "requests.parquet")
    assert requests["prompt_tokens"].tolist() == [10, 30, 5] * 10
    assert requests["output_tokens"].tolist() == [2, 1, 4] * 10
    assert manifest(tmp_path / "out")["config"]["token_scale"] == 0.1
    assert "lengths scaled by 0.1" in manifest(tmp_path / "out")["trace"]["notes"]


def test_swaps_without_room_for_them_are_noted() -> None:
    def notes(*arguments: object) -> list[str]:
        load = ("run", "--limit", 40, "--token-scale", 0.1, "--all-at-once", "--blocks", 60)
        ended = schedsim(*load, "--policy", *arguments)
        assert ended.exit_code == 0, ended.stderr
        return [text for text in ended.notes if "to swap a request out" in text]

    (note,) = notes("vllm-v0,preemption=swap")
    assert note.endswith("there is no host tier; --memory paged,host_blocks=N gives the engine one")
    (note,) = notes("vllm-v0,preemption=swap", "--memory", "paged,host_blocks=8")
    assert note.endswith("the host tier of 8 blocks did not take them")
    assert not notes("vllm-v0,preemption=swap", "--memory", "paged,host_blocks=500")
    assert not notes("vllm-v0")
