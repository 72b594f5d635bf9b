"""`schedsim compare` and `run --repeats`, as a user types them."""

import json
from pathlib import Path

import pytest

from tests.cli.commands import manifest, names, refused, schedsim, summary

LOAD = ("--limit", 120, "--arrivals", "poisson:rate=6")
POLICIES = ("--policy", "vllm", "--policy", "sarathi")


@pytest.fixture(scope="module")
def repeated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("repeated") / "out"
    ended = schedsim("run", *LOAD, *POLICIES, "--repeats", 3, "--seed", 5, "--out", out)
    assert ended.exit_code == 0, ended.stderr
    assert "less vllm" in ended.stdout
    assert ended.notes[-1] == f"note: results in {out}"
    return out


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("single") / "out"
    assert schedsim("run", "-q", *LOAD, *POLICIES, "--out", out).exit_code == 0
    return out


def test_repeats_are_runs_under_the_seeds_that_follow(repeated: Path, tmp_path: Path) -> None:
    assert names(repeated) == {"vllm", "sarathi"}
    assert names(repeated / "vllm") == {"seed-5", "seed-6", "seed-7"}
    alone = tmp_path / "alone"
    assert schedsim("run", "-q", *LOAD, "--seed", 6, "--out", alone).exit_code == 0
    assert summary(alone) == summary(repeated / "vllm" / "seed-6")
    assert manifest(repeated / "vllm" / "seed-6")["seed"] == 6


def test_a_folder_of_repeats_is_compared_by_replications(repeated: Path) -> None:
    ended = schedsim("compare", repeated, "--baseline", "vllm")
    assert ended.exit_code == 0, ended.stderr
    assert "3 replications, paired by the same seeds" in ended.stdout
    both = schedsim("compare", repeated / "vllm", repeated / "sarathi")
    assert both.stdout == ended.stdout


def test_the_figures_are_those_of_the_summaries(repeated: Path, single: Path) -> None:
    read = json.loads(schedsim("compare", repeated, "--json").stdout)
    cell = read["metrics"]["output_tokens_per_s"]["vllm"]
    told = [
        summary(repeated / "vllm" / f"seed-{seed}")["throughput"]["whole"]["output_tokens_per_s"]
        for seed in (5, 6, 7)
    ]
    assert cell["value"] == pytest.approx(sum(told) / 3)
    read = json.loads(schedsim("compare", single, "--json").stdout)
    mean = summary(single / "vllm")["latency"]["whole"]["ttft_s"]["mean"]
    assert read["metrics"]["ttft_s.mean"]["vllm"]["value"] == pytest.approx(mean)
    assert read["metrics"]["ttft_s.mean"]["vllm"]["difference"]["paired"] is True


def test_single_runs_are_compared_by_batches(single: Path) -> None:
    ended = schedsim("compare", single)
    assert "batches of the requests of one run each" in ended.stdout
    assert "paired by the same load" in ended.stdout
    assert "too few samples" in ended.stdout  # a p99 of 120 requests
    assert ended.stderr == ""


def test_goodput_has_an_interval_where_the_objectives_are_the_commands(tmp_path: Path) -> None:
    out = tmp_path / "out"
    slo = ("--slo", "ttft=0.05,tpot=0.008")
    assert schedsim("run", "-q", *LOAD, *POLICIES, *slo, "--out", out).exit_code == 0
    read = json.loads(schedsim("compare", out, "--json", "--metric", "goodput").stdout)
    cell = read["metrics"]["goodput"]["sarathi"]
    assert cell["value"] == pytest.approx(summary(out / "sarathi")["goodput"]["whole"]["share"])
    assert cell["interval_half"] > 0


def test_one_run_has_intervals_too(single: Path) -> None:
    ended = schedsim("compare", single / "vllm")
    assert ended.exit_code == 0
    assert "±" in ended.stdout
    assert "less" not in ended.stdout


def test_what_is_no_run_is_told(single: Path, repeated: Path, tmp_path: Path) -> None:
    assert "no such run directory" in refused("compare", tmp_path / "nowhere")
    assert "is not a run directory" in refused("compare", tmp_path)
    twice = refused("compare", single / "vllm", single / "vllm")
    assert twice.endswith("is named twice; give each run once")
    assert "is one run" in refused("compare", single / "vllm", repeated / "vllm")
    assert "Did you mean 'e2e_s.mean'?" in refused("compare", single, "--metric", "e2e.mean")


def test_repeats_of_what_is_not_random_are_refused(tmp_path: Path) -> None:
    message = refused("run", "--repeats", 2, "--out", tmp_path / "out")
    assert "every repeat would be the same run" in message
    assert "every repeat" in refused("run", "--repeats", 2, "--all-at-once")
    assert not (tmp_path / "out").exists()
    ended = schedsim("run", "-q", "--repeats", 2, "--limit", 5, "--predictor", "lognormal,sigma=1")
    assert ended.exit_code == 0
