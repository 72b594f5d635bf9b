"""`schedsim trace` as a user meets it: output, files, messages and exit codes."""

import errno
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from typer.testing import CliRunner

from schedsim.cli import trace as trace_command
from schedsim.cli.trace import app
from schedsim.traces import read_trace
from schedsim.traces.generators import Workload
from schedsim.traces.sample import sample_trace

AZURE = (
    "TIMESTAMP,ContextTokens,GeneratedTokens\r\n"
    "2023-11-16 18:00:00.0000000,10,3\r\n"
    "2023-11-16 18:00:01.5000000,20,4\r\n"
    "2023-11-16 18:00:02.0000000,30,5"
)
LENGTHS = "num_prefill_tokens,num_decode_tokens\n10,3\n20,4\n30,5\n"


class Ended(NamedTuple):
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str


def run(*arguments: object) -> Ended:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ended(result.exit_code, result.stdout, result.stderr)


def refused(*arguments: object) -> str:
    """The message of a command that must end with exit code 2 and nothing on stdout."""
    result = run(*arguments)
    assert result.exit_code == 2, result.stderr
    assert result.stdout == ""
    assert result.stderr.startswith("error: ")
    return result.stderr


def generate(out: Path, *arguments: object) -> None:
    result = run("generate", "--out", out, *arguments)
    assert result.exit_code == 0, result.stderr


@pytest.fixture
def azure(tmp_path: Path) -> Path:
    file = tmp_path / "azure.csv"
    file.write_bytes(AZURE.encode())
    return file


@pytest.fixture
def lengths(tmp_path: Path) -> Path:
    file = tmp_path / "lengths.csv"
    file.write_text(LENGTHS)
    return file


def test_the_documented_command_makes_the_bundled_sample(tmp_path: Path) -> None:
    out = tmp_path / "sample.parquet"
    generate(out, "--preset", "azure-conv", "--requests", 3000, "--rate", 5.5, "--seed", 1)
    made, sample = read_trace(out), sample_trace()
    np.testing.assert_allclose(made.arrival, sample.arrival, rtol=1e-9)
    np.testing.assert_allclose(made.prompt_tokens, sample.prompt_tokens, atol=1)
    assert made.source.notes == sample.source.notes


@pytest.mark.parametrize("suffix", [".parquet", ".jsonl", ".jsonl.gz"])
def test_the_same_seed_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    one, other, third = (tmp_path / f"{name}{suffix}" for name in "abc")
    arguments = ("--preset", "sharegpt", "--sessions", 3, "--tenants", 4, "--requests", 50)
    generate(one, *arguments, "--seed", 7)
    generate(other, *arguments, "--seed", 7)
    generate(third, *arguments, "--seed", 8)
    assert one.read_bytes() == other.read_bytes() != third.read_bytes()


def test_laws_and_arrivals_without_a_preset(tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    laws = ("--prompt", "fixed:512", "--output", "uniform:low=2,high=9")
    generate(out, *laws, "--arrivals", "deterministic:rate=4", "--requests", 20)
    trace = read_trace(out)
    assert (trace.prompt_tokens == 512).all()
    assert np.allclose(np.diff(trace.arrival), 0.25)
    generate(out, "--force", *laws, "--rate", 2, "--requests", 5)
    assert len(read_trace(out)) == 5


def test_empirical_lengths_come_from_the_side_they_stand_for(tmp_path: Path, lengths: Path) -> None:
    out = tmp_path / "t.parquet"
    law = f"empirical:{lengths}"
    generate(out, "--prompt", law, "--output", law, "--rate", 1, "--requests", 200)
    trace = read_trace(out)
    assert set(trace.prompt_tokens.tolist()) == {10, 20, 30}
    assert set(trace.output_tokens.tolist()) == {3, 4, 5}


def test_a_preset_takes_its_parameter(tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    generate(out, "--preset", "anyscale-2023:cap=32", "--requests", 100)
    assert read_trace(out).output_tokens.max() <= 32


def test_an_existing_file_is_kept_unless_forced(tmp_path: Path, azure: Path) -> None:
    out = tmp_path / "t.parquet"
    out.write_bytes(b"mine")
    message = refused("generate", "--preset", "sharegpt", "--out", out)
    assert "--force" in message
    assert "--force" in refused("convert", azure, out)
    assert out.read_bytes() == b"mine"
    generate(out, "--preset", "sharegpt", "--force")
    assert len(read_trace(out)) == 1000
    assert sorted(path.name for path in tmp_path.iterdir()) == ["azure.csv", "t.parquet"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--preset", "azure-con"), "Did you mean 'azure-conv'"),
        (("--preset", "sharegpt:cap=3"), "no parameters"),
        (("--preset", "sharegpt", "--rate", "0"), "rate > 0"),
        (("--preset", "sharegpt", "--rate", "nan"), "rate > 0"),
        (("--preset", "sharegpt", "--requests", "0"), "requests"),
        (("--preset", "sharegpt", "--seed", "-1"), "seed"),
        (("--preset", "sharegpt", "--rho", "2"), "rho"),
        (("--preset", "sharegpt", "--arrivals", "poison:rate=1"), "poisson"),
        (("--preset", "sharegpt", "--arrivals", "gamma:rate=1", "--rate", "2"), "once"),
        (("--preset", "sharegpt", "--tenants", "3", "--arrivals", "gamma:rate=1"), "--rate"),
        (("--preset", "anyscale-2023", "--tenants", "3"), "--rate"),
        (("--preset", "sharegpt", "--sessions", "turns=2,system=tenant"), "--tenants"),
        (("--prompt", "fixed:3"), "--preset"),
        (("--prompt", "fixed:3", "--output", "fixd:3", "--rate", "1"), "Did you mean 'fixed'"),
    ],
)
def test_bad_options_are_refused_with_a_reason(
    tmp_path: Path, arguments: tuple[str, ...], words: str
) -> None:
    out = tmp_path / "t.parquet"
    assert words in refused("generate", "--out", out, *arguments)
    assert not out.exists()


@pytest.mark.parametrize("name", ["t.csv", "nowhere/t.parquet"])
def test_a_place_that_cannot_be_written_is_refused_before_any_work(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def work(*_: object) -> None:
        raise AssertionError("no work may be done")

    monkeypatch.setattr(Workload, "generate", work)
    refused("generate", "--preset", "sharegpt", "--out", tmp_path / name)


def test_info_counts_every_row(tmp_path: Path) -> None:
    file = tmp_path / "azure.csv"
    file.write_text(AZURE + "\r\n2023-11-16 18:00:03.0000000,5,0\r\n")
    result = run("info", file, "--json")
    assert result.exit_code == 0, result.stderr
    (described,) = json.loads(result.stdout)
    assert described["rows_read"] == 4
    assert described["rows"] == 3
    assert sum(described["dropped"].values()) == 1
    assert described["arrivals"]["span_s"] == 2.0
    assert described["prompt"]["max"] == 30
    table = run("info", file).stdout
    assert "rows read" in table
    assert "dropped" in table


def test_info_sets_traces_side_by_side(azure: Path, lengths: Path) -> None:
    output = run("info", azure, lengths).stdout
    assert "azure.csv" in output
    assert "lengths.csv" in output
    assert "--arrivals" in output


def test_info_shows_sessions_tenants_and_prefixes(tmp_path: Path) -> None:
    out = tmp_path / "t.parquet"
    generate(out, "--preset", "sharegpt", "--sessions", "4", "--tenants", "3")
    output = run("info", out).stdout
    for words in ("sessions", "think time", "tenants", "prefix hits", "generated with seed 0"):
        assert words in output


def test_head_prints_the_first_rows(azure: Path) -> None:
    output = run("head", azure, "-n", "2").stdout
    assert "prompt_tokens" in output
    assert "1.500000" in output
    assert "2.000000" not in output


class Conversion(NamedTuple):
    options: tuple[str, ...]
    arrival: list[float]
    prompt: list[int]


@pytest.mark.parametrize(
    "case",
    [
        Conversion((), [0.0, 1.5, 2.0], [10, 20, 30]),
        Conversion(("--window", "1:2"), [0.5], [20]),
        Conversion(("--rate-scale", "2"), [0.0, 0.75, 1.0], [10, 20, 30]),
        Conversion(("--limit", "2"), [0.0, 1.5], [10, 20]),
        Conversion(("--max-context", "30"), [0.0, 1.5], [10, 20]),
        Conversion(("--max-context", "30", "--over", "clip"), [0.0, 1.5, 2.0], [10, 20, 25]),
        Conversion(("--arrivals", "deterministic:rate=10"), [0.0, 0.1, 0.2], [10, 20, 30]),
    ],
)
def test_convert_changes_what_it_is_told_to(tmp_path: Path, azure: Path, case: Conversion) -> None:
    out = tmp_path / "t.parquet"
    result = run("convert", azure, out, *case.options)
    assert result.exit_code == 0, result.stderr
    assert result.stdout == ""
    trace = read_trace(out)
    assert trace.arrival.tolist() == pytest.approx(case.arrival)
    assert trace.prompt_tokens.tolist() == case.prompt
    assert trace.source.rows_read == len(trace) + sum(trace.source.dropped.values())


def test_convert_combines_traces(tmp_path: Path, azure: Path) -> None:
    later = tmp_path / "later.csv"
    later.write_bytes(AZURE.replace("18:00", "18:01").encode())
    merged, overlaid = tmp_path / "m.jsonl", tmp_path / "o.jsonl.gz"
    assert run("convert", azure, merged, "--merge", later).exit_code == 0
    assert run("convert", azure, overlaid, "--overlay", later).exit_code == 0
    assert read_trace(merged).arrival.tolist() == pytest.approx([0, 1.5, 2, 60, 61.5, 62])
    assert read_trace(overlaid).arrival.tolist() == pytest.approx([0, 0, 1.5, 1.5, 2, 2])


def test_convert_gives_lengths_arrivals_and_thins_by_seed(tmp_path: Path, lengths: Path) -> None:
    one, other = tmp_path / "a.parquet", tmp_path / "b.parquet"
    options = ("--arrivals", "poisson:rate=5", "--thin", "0.7", "--seed", "3")
    assert run("convert", lengths, one, *options).exit_code == 0
    assert run("convert", lengths, other, *options).exit_code == 0
    assert one.read_bytes() == other.read_bytes()
    assert read_trace(one).has_arrivals


def test_convert_starts_sessions_in_closed_loop(tmp_path: Path) -> None:
    sessions, restarted = tmp_path / "a.parquet", tmp_path / "b.parquet"
    generate(sessions, "--preset", "sharegpt", "--sessions", "4", "--requests", "100")
    assert run("convert", sessions, restarted, "--arrivals", "burst").exit_code == 0
    trace = read_trace(restarted)
    assert trace.parent is not None
    assert (trace.arrival[trace.parent < 0] == 0).all()
    assert (trace.arrival[trace.parent >= 0] > 0).all()


@pytest.mark.parametrize(
    "options",
    [
        ("--window", "5"),
        ("--window", "a:b"),
        ("--window", "9:3"),
        ("--limit", "0"),
        ("--thin", "2"),
        ("--rate-scale", "0"),
        ("--arrivals", "x"),
        ("--merge", "missing.csv"),
    ],
)
def test_convert_refuses_bad_options(tmp_path: Path, azure: Path, options: tuple[str, ...]) -> None:
    out = tmp_path / "t.parquet"
    refused("convert", azure, out, *options)
    assert not out.exists()


def test_a_missing_file_is_one_message(tmp_path: Path) -> None:
    for command in ("info", "head"):
        assert "missing.csv" in refused(command, tmp_path / "missing.csv")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted"),
        (OSError(errno.ENOSPC, "No space left on device", "t.csv"), 2, "make room"),
        (PermissionError(errno.EACCES, "Permission denied", "t.csv"), 2, "permissions"),
    ],
)
def test_what_stops_a_command_from_outside_is_one_message(
    azure: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, words: str
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr(trace_command, "read_trace", fail)
    result = run("info", azure)
    assert result.exit_code == code
    assert words in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("command", ["info", "head", "convert", "generate"])
def test_help_has_examples(command: str) -> None:
    result = run(command, "--help")
    assert result.exit_code == 0
    assert f"schedsim trace {command}" in result.stdout
