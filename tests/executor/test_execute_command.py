"""`schedsim execute` as a user types it: files, manifest, replay. Never the clock."""

import gzip
import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

torch = pytest.importorskip("torch")

import schedsim
from tests.cli.commands import RESULTS, Ended, manifest, names, summary
from tests.cli.commands import schedsim as command
from tests.executor.chats import chats
from tests.executor.models import random_model, saved

POLICIES = ("vllm", "sarathi,chunk_size=16", "vllm-v0", "static,batch_size=4")
ON_CPU = ("--device", "cpu", "--threads", 1)
TINY = ("--limit", 12, "--token-scale", 0.02)
SMALL_CACHE = ("--blocks", 20, "--block-size", 4, "--max-seqs", 6)


def executed(*arguments: object) -> Ended:
    ended = command("execute", *arguments, *ON_CPU)
    assert ended.exit_code == 0, ended.stderr
    return ended


def records(directory: Path) -> list[dict[str, Any]]:
    """The decisions of a run, without the line that says with what they were taken."""
    text = gzip.decompress((directory / "decisions.jsonl.gz").read_bytes()).decode()
    return [json.loads(line) for line in text.splitlines()[1:]]


def test_it_writes_what_run_writes_and_what_the_device_measured(tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = executed(*TINY, "--all-at-once", "--decisions", "--timeline", "--check", "--out", out)
    assert "TTFT p99 (s)" in ended.stdout
    assert names(out) == RESULTS | {"decisions.jsonl.gz", "timeline.json.gz"}
    steps = pd.read_parquet(out / "steps.parquet")
    assert len(records(out)) == len(steps)
    for column in ("host_s", "gpu_s"):
        assert steps[column].notna().all()
    assert steps["gap_s"].notna().tolist() == [False] + [True] * (len(steps) - 1)
    ends = steps["end"].str[0]
    assert (steps["decided_at"] <= steps["start"]).all()
    assert (steps["start"] <= ends).all()
    assert (steps["decided_at"][1:].to_numpy() >= ends[:-1].to_numpy()).all()
    requests = pd.read_parquet(out / "requests.parquet")
    assert (requests["status"] == "finished").all()
    assert (requests["released"] >= requests["arrival"]).all()


def test_the_manifest_says_what_was_executed_on_what(tmp_path: Path) -> None:
    out = tmp_path / "out"
    executed(*TINY, "--dtype", "float64", "--seed", 3, "--out", out)
    written = manifest(out)
    assert written["complete"] is True
    assert written["decision_lag"] == 0
    assert written["config"]["model"] == "tiny"
    assert written["config"]["resolved"]["step_time"] == "measured"
    assert written["config"]["step_time"] == "measured"
    assert written["execution"] == {
        "weights": "random, seed 3",
        "device": "cpu",
        "device_uuid": None,
        "dtype": "float64",
        "attention": "torch",
        "temperature": 0.0,
        "threads": 1,
        "seed": 3,
        "kernels": None,
        "padding": None,
    }
    assert written["device"] not in ("", "cpu simulator")
    assert written["versions"]["torch"] == torch.__version__
    assert written["estimator"]["name"] == "roofline"
    assert "simulator_speed" not in written
    assert "step_time" not in written


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("load", [("--rate-scale", 20), ("--all-at-once",), ("--concurrency", 5)])
@pytest.mark.parametrize("lag", [0, 1])
def test_the_simulator_takes_the_same_decisions_at_the_recorded_moments(
    tmp_path: Path, policy: str, load: tuple[object, ...], lag: int
) -> None:
    common = (*TINY, *SMALL_CACHE, *load, "--policy", policy, "--decisions", "-q")
    common += ("--decision-lag", lag)
    executed(*common, "--out", tmp_path / "real")
    replay = ("--model", "tiny", "--step-time", f"recorded:{tmp_path / 'real'}")
    ended = command("run", *common, *replay, "--out", tmp_path / "replayed")
    assert ended.exit_code == 0, ended.stderr
    assert records(tmp_path / "replayed") == records(tmp_path / "real")
    real, replayed = (
        pd.read_parquet(tmp_path / name / "steps.parquet") for name in ("real", "replayed")
    )
    shared = [column for column in real if column in replayed]
    pd.testing.assert_frame_equal(replayed[shared], real[shared])


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("load", [("--all-at-once",), ("--concurrency", 5)])
@pytest.mark.parametrize("lag", [0, 1])
def test_the_simulator_finds_the_same_prefixes(
    tmp_path: Path, policy: str, load: tuple[object, ...], lag: int
) -> None:
    trace = tmp_path / "chats.jsonl"
    schedsim.write_trace(chats(), trace)
    common = (trace, "--blocks", 40, "--block-size", 4, "--max-seqs", 6, *load, "--decisions", "-q")
    common += ("--policy", policy, "--memory", "paged,prefix_caching=true", "--decision-lag", lag)
    executed(*common, "--out", tmp_path / "real")
    replay = ("--model", "tiny", "--step-time", f"recorded:{tmp_path / 'real'}")
    ended = command("run", *common, *replay, "--out", tmp_path / "replayed")
    assert ended.exit_code == 0, ended.stderr
    assert command("diff", tmp_path / "real", tmp_path / "replayed").exit_code == 0
    assert records(tmp_path / "replayed") == records(tmp_path / "real")
    found = summary(tmp_path / "real")
    assert found["cached_tokens"] > 0
    if policy in ("vllm", "vllm-v0"):
        assert found["preemptions"] > 0


@pytest.mark.parametrize("caching", ["false", "true"])
@pytest.mark.parametrize("lag", [0, 1])
def test_the_simulator_swaps_the_same_blocks(tmp_path: Path, caching: str, lag: int) -> None:
    common = (*TINY, *SMALL_CACHE, "--all-at-once", "--decisions", "-q")
    common += ("--policy", "vllm-v0,preemption=swap", "--decision-lag", lag)
    common += ("--memory", f"paged,host_blocks=50,prefix_caching={caching}")
    executed(*common, "--out", tmp_path / "real")
    replay = ("--model", "tiny", "--step-time", f"recorded:{tmp_path / 'real'}")
    assert command("run", *common, *replay, "--out", tmp_path / "replayed").exit_code == 0
    real = records(tmp_path / "real")
    assert records(tmp_path / "replayed") == real
    assert any("swapped_out" in record for record in real)
    assert any("swapped_in" in record for record in real)
    found = summary(tmp_path / "real")
    assert found["swapped_blocks"] > 0
    assert found["recomputed_tokens"] == 0


@pytest.mark.parametrize("policy", ["vllm", "vllm-v0,preemption=swap", "sarathi,chunk_size=16"])
@pytest.mark.parametrize(
    ("memory", "happens"),
    [
        ("paged,free_order=back", "preemptions"),
        ("contiguous", ""),
        ("contiguous,reserve=max", ""),
        ("contiguous,reserve=predicted", "copied_blocks"),
        ("contiguous,reserve=predicted,overrun=preempt", "preemptions"),
        ("contiguous,reserve=predicted,compaction=true,host_blocks=50", "copied_blocks"),
        ("buddy,reserve=exact,host_blocks=50", "copied_blocks"),
        ("buddy,reserve=pow2", ""),
        ("radix", "preemptions"),
        ("vattention,tokens_per_page=3,host_blocks=50", "preemptions"),
    ],
)
@pytest.mark.parametrize("lag", [0, 1])
def test_every_memory_manager_is_replayed(
    tmp_path: Path, policy: str, memory: str, happens: str, lag: int
) -> None:
    common = ("--limit", 24, "--token-scale", 0.05, "--all-at-once", "-q", "--decision-lag", lag)
    common += ("--blocks", 30, "--block-size", 4, "--max-seqs", 6)
    common += ("--policy", policy, "--memory", memory, "--predictor", "lognormal,sigma=1.5")
    common += ("--max-model-len", 110, "--max-output", "factor:4", "--decisions", "--check")
    executed(*common, "--out", tmp_path / "real")
    replay = ("--model", "tiny", "--step-time", f"recorded:{tmp_path / 'real'}")
    ended = command("run", *common, *replay, "--out", tmp_path / "replayed")
    assert ended.exit_code == 0, ended.stderr
    real = records(tmp_path / "real")
    assert records(tmp_path / "replayed") == real
    found = summary(tmp_path / "real")
    assert found["requests"]["finished"] > 0
    if happens and policy == "vllm":
        assert found[happens] > 0
    assert any("moved" in record for record in real) == (found["copied_blocks"] > 0)
    steps, replayed = (
        pd.read_parquet(tmp_path / name / "steps.parquet") for name in ("real", "replayed")
    )
    shared = [column for column in steps if column in replayed]
    pd.testing.assert_frame_equal(replayed[shared], steps[shared])


def test_small_caches_preempt() -> None:
    ended = executed(*TINY, *SMALL_CACHE, "--all-at-once", "--json", "-q")
    assert json.loads(ended.stdout)["vllm"]["preemptions"] > 0


def test_several_policies_share_a_model_and_have_folders_of_their_own(tmp_path: Path) -> None:
    out = tmp_path / "out"
    ended = executed(*TINY, "--policy", "vllm", "--policy", "static", "--json", "-q", "--out", out)
    assert list(json.loads(ended.stdout)) == ["vllm", "static"]
    assert ended.stderr == ""
    assert names(out) == {"vllm", "static"}
    for folder in ("vllm", "static"):
        assert names(out / folder) == RESULTS


def test_the_number_of_blocks_is_told() -> None:
    notes = executed(*TINY, "--max-seqs", 4).notes
    assert "note: 512 KV blocks of 16 tokens on cpu: 4 seats of the longest context; --blocks " in (
        " ".join(notes)
    )
    notes = executed(*TINY, "--block-size", 64, "--max-seqs", 10**6).notes
    assert "note: 32768 KV blocks of 64 tokens on cpu: 1 GiB of memory; --blocks sets others" in (
        notes
    )


def test_weights_bring_their_own_model(tmp_path: Path) -> None:
    weights = saved(random_model("qwen3"), tmp_path / "weights", max_shard_size="60KB")
    assert (weights / "model.safetensors.index.json").is_file()
    out = tmp_path / "out"
    executed(*TINY, "--weights", weights, "--out", out)
    written = manifest(out)
    assert written["config"]["model"] == str(weights)
    assert written["execution"]["weights"] == str(weights)
    assert summary(out)["requests"]["finished"] == 12


def test_the_python_call_gives_the_tables(tmp_path: Path) -> None:
    result = schedsim.execute(
        schedsim.sample_trace(),
        "static,batch_size=3",
        device="cpu",
        limit=5,
        token_scale=0.02,
        arrivals="burst",
        out=tmp_path / "out",
        check_every=1,
    )
    assert result.summary["requests"]["finished"] == 5
    assert result.steps["padding_requests"].max() > 0
    assert names(tmp_path / "out") == RESULTS
