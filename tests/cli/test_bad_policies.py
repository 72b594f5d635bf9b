"""A policy that fails is one message that says where; what finished before it is kept."""

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest

from tests.cli.commands import (
    RESULTS,
    Ended,
    manifest,
    names,
    only_error,
    refused,
    schedsim,
    summary,
)

POLICIES = Path(__file__).parent / "bad_policies.py"
SMALL = ("--limit", 60, "--blocks", 700, "--max-seqs", 16)


def run_policy(name: str, out: Path) -> Ended:
    return schedsim("run", "--policy", f"{POLICIES}:{name}", *SMALL, "--decisions", "--out", out)


# class, what the message says, whether it names the line in the policy's file
STOPPED = [
    ("RaisesInTheMiddle", "raised ValueError: no such queue in iteration 300", True),
    ("RaisesAtArrival", "raised KeyError: 'tenant' at the arrival of request 30", True),
    ("RaisesWhenOneFinishes", "raised ZeroDivisionError: division by zero after iteration", True),
    ("RaisesAtToken", "raised RuntimeError after iteration", True),
    ("ExitsWhenOneFinishes", "raised SystemExit: 3 after iteration", True),
    ("ExitsInTheMiddle", "raised SystemExit in iteration 300", True),
    ("RaisesTwoLines", "raised ValueError: no such queue in iteration 0", True),
    ("RunsTwice", "iteration 0: request 0 is run twice in one iteration", True),
    ("AdmitsBeyondTheSeats", "is admitted beyond the 16 seats", True),
    ("AdmitsTooManyTokens", "request 0 is given 10000000 tokens, it has 4232 left", True),
    ("RunsHalfATokenMore", "gets 1.5 from `run`, must be a whole number", True),
    ("PreemptsWhoWaits", "request 0 cannot be preempted, it is waiting", True),
    ("NamesNoRequestAsVictim", "raised AttributeError", False),
    ("AnswersTheGateWithTrue", "gets True from `gate`, must be a Gate", False),
    ("CutsHalfTokens", "gets 10.5 from `chunk`, must be a whole number", False),
    ("HasNoBudget", "gets None from `budget`, must be a whole number", False),
    ("ReservesHalfTokens", "from its reservation, must be a whole number", False),
    ("ReleasesNobodyKnowsWhen", "gets None from `release`, must be a Release", False),
    ("ComparesTheUncomparable", "raised TypeError: '<' not supported", False),
    ("RunsNothing", "deadlock: policy 'RunsNothing' runs nothing at", False),
    ("WakesNow", "asks to be woken at 0.0 s, which is not later", False),
    ("WakesAtNoTime", "asks to be woken at nan s, which is not later", False),
    ("WakesNever", "`wake_at` says inf, must be a time or None", False),
    ("WakesLater", "raised TypeError", False),
    ("WakesAllTheTime", "livelock: policy 'WakesAllTheTime' had itself woken", False),
    ("StartsOverAndOver", "livelock: policy 'StartsOverAndOver' preempted", False),
    ("TakesBackWhatItGave", "livelock: policy 'TakesBackWhatItGave' preempted", False),
]


@pytest.mark.parametrize(("name", "message", "has_line"), STOPPED)
def test_a_policy_that_fails_ends_its_run_and_keeps_what_finished(
    tmp_path: Path, name: str, message: str, has_line: bool
) -> None:
    out = tmp_path / "out"
    ended = run_policy(name, out)
    assert ended.exit_code == 2
    error = only_error(ended)
    assert message in error
    assert f"policy {name!r}" in error
    assert (f"({POLICIES}, line " in error) == has_line
    assert names(out) == RESULTS | {"decisions.jsonl.gz"}
    written = manifest(out)
    assert written["complete"] is False
    assert message in written["stopped"]
    counts = summary(out)["requests"]
    statuses = ("finished", "rejected", "failed", "unfinished")
    assert sum(counts[status] for status in statuses) == 60


def test_what_finished_before_the_error_is_in_the_results(tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = run_policy("RaisesInTheMiddle", out)
    assert summary(out)["requests"]["finished"] > 0
    assert "requests unfinished" in ended.stdout


def test_the_other_policies_of_the_command_still_run(tmp_path: Path) -> None:
    out = tmp_path / "out"
    bad = f"{POLICIES}:RaisesInTheMiddle"
    ended = schedsim("run", "--policy", bad, "--policy", "vllm", *SMALL, "--out", out)
    assert ended.exit_code == 2
    assert "no such queue" in only_error(ended)
    assert manifest(out / "vllm")["complete"] is True
    assert [manifest(folder)["complete"] for folder in sorted(out.iterdir())].count(False) == 1


def test_a_policy_that_declines_everyone_rejects_everyone(tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = run_policy("Declines", out)
    assert ended.exit_code == 0
    assert summary(out)["requests"]["rejected"] == 60
    assert manifest(out)["complete"] is True


def test_numbers_from_numpy_are_numbers(tmp_path: Path) -> None:
    assert run_policy("WorksWithNumpy", tmp_path / "out").exit_code == 0


# written into policy.py, the class asked for, what the message says
UNLOADABLE = [
    ("import nowhere\n", "Mine", "raised ModuleNotFoundError: No module named 'nowhere'"),
    ("x = (\n", "Mine", "has a syntax error: '(' was never closed (policy.py, line 1)"),
    ("1 / 0\n", "Mine", "raised ZeroDivisionError: division by zero"),
    ("import sys\nsys.exit(3)\n", "Mine", "raised SystemExit: 3"),
    ("\0", "Mine", "has a syntax error"),
    ("x = 1\n", "Mine", "has no policy class 'Mine'. Its subclasses of schedsim.Policy: none."),
]


@pytest.mark.parametrize(("source", "name", "message"), UNLOADABLE)
def test_a_policy_file_that_does_not_load_is_one_message(
    tmp_path: Path, source: str, name: str, message: str
) -> None:
    file, out = tmp_path / "policy.py", tmp_path / "out"
    file.write_text(source)
    error = refused("run", "--policy", f"{file}:{name}", "--out", out)
    assert message in error
    assert str(file) in error
    assert not out.exists()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("nowhere.py:Mine", "policy file 'nowhere.py' is not there; check the path"),
        ("nowhere.py", "name the class in it too: nowhere.py:Class"),
        ("nowhere:Mine", "policy module 'nowhere' is not installed"),
        ("json.decoder:JSONDecoder", "'json.decoder' has no policy class 'JSONDecoder'"),
        (".:Mine", "'.' is neither a module nor a policy file"),
        (f"{POLICIES}:NoPolicy", "has no policy class 'NoPolicy'"),
        (f"{POLICIES}:Wakenow", "Did you mean 'WakesNow'?"),
        (f"{POLICIES}:RaisesWhenMade", "its constructor raised RuntimeError: no weights"),
        (f"{POLICIES}:ExitsWhenMade", "its constructor raised SystemExit: bye"),
        (f"{POLICIES}:HasNoDefaultBudget", "gets 'many' from `default_token_budget`"),
        (f"{POLICIES}:WithParameters", "needs alpha=…"),
        (f"{POLICIES}:WithParameters,alpha=x", "alpha='x': must be a number"),
        (f"{POLICIES}:WithParameters,alpha=1,rounds=2.5", "rounds='2.5': must be a whole number"),
        (f"{POLICIES}:WithParameters,alhpa=1", "Did you mean 'alpha'?"),
        ("vllm,watermark=2", "watermark=2.0 is not in [0, 1)"),
        ("vllm,watermark=nan", "watermark=nan is not in [0, 1)"),
        ("vllm,watermrk=0.1", "Did you mean 'watermark'? Its parameters: policy, whole_s"),
        ("vllm,watermark=0,watermark=0", "'watermark' stands twice"),
        ("sarathi,chunk_size=0", "chunk_size=0"),
        ("static,batch_size=-1", "batch_size=-1 is below 1"),
        ("static,max_wait=inf", "max_wait=inf must be finite"),
        ("vlm", "Did you mean 'vllm'? Known: "),
        ("", "names nothing"),
        ("vllm=1", "unknown policy"),
    ],
)
def test_a_policy_that_cannot_be_made_is_one_message(
    tmp_path: Path, spec: str, message: str
) -> None:
    assert message in refused("run", "--policy", spec, "--out", tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("lag", [0, 1])
@pytest.mark.parametrize(
    "name",
    ["RaisesAtToken", "RaisesWhenOneFinishes", "ExitsWhenOneFinishes", "ReleasesNobodyKnowsWhen"],
)
def test_all_files_agree_on_the_iteration_after_which_a_hook_raised(
    tmp_path: Path, name: str, lag: int
) -> None:
    # All prompts are one length and end together, so others finish beside the one it fails at.
    trace, out = tmp_path / "lengths.csv", tmp_path / "out"
    trace.write_text("num_prefill_tokens,num_decode_tokens\n" + "20,5\n" * 6)
    arguments = ("run", trace, "--all-at-once", "--policy", f"{POLICIES}:{name}")
    ended = schedsim(*arguments, "--decision-lag", lag, "--decisions", "--out", out)
    assert ended.exit_code == 2, ended.stderr
    steps, requests = (pd.read_parquet(out / f"{table}.parquet") for table in ("steps", "requests"))
    records = [
        json.loads(line)
        for line in gzip.decompress((out / "decisions.jsonl.gz").read_bytes()).splitlines()[1:]
    ]
    assert [record["step"] for record in records] == steps["step"].tolist()
    tokens = summary(out)["output_tokens"]
    assert steps["sampled"].sum() == tokens
    assert sum(len(record["sampled"]) for record in records) == tokens
    finished = {f"r{request}" for request in requests.query("status == 'finished'")["request"]}
    assert {name for record in records for name in record["finished"]} == finished
    assert len(finished) == (0 if name == "RaisesAtToken" else 6)
