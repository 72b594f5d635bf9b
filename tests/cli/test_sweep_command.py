"""`schedsim sweep` as a user types it: the plan, the dataset, mistakes, and what a kill costs."""

import importlib.util
import json
import os
import random
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest

from tests.cli.commands import (
    Ended,
    command,
    names,
    only_error,
    plain_environment,
    refused,
    schedsim,
    summary,
)

SMALL = """
[settings]
limit = 12
blocks = 400
slo_ttft = 1.0
[grid]
policy = ["vllm", "sarathi,chunk_size=64"]
rate_scale = [1.0, 2.0, 4.0]
"""
KILLED = """
[settings]
trace = "generate:azure-conv,requests=60,rate=6"
[grid]
policy = ["vllm", "static"]
seed = {seeds}
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    file = tmp_path / "small.toml"
    file.write_text(SMALL)
    return file


def swept(*arguments: object) -> Ended:
    ended = schedsim("sweep", *arguments, "--jobs", 1)
    assert ended.exit_code == 0, ended.stderr
    return ended


def test_a_dry_run_lists_the_runs_and_writes_nothing(config: Path) -> None:
    before = names(config.parent)
    ended = schedsim("sweep", config, "--dry-run")
    assert ended.exit_code == 0
    assert len(ended.stdout.splitlines()) == 1 + 6 + 1
    out = config.with_suffix("")
    assert ended.stdout.splitlines()[-1] == f"6 runs, 0 of them in {out}"
    assert names(config.parent) == before


def test_the_dataset_has_a_row_for_each_run_with_the_figures_of_its_summary(
    config: Path, tmp_path: Path
) -> None:
    ended = swept(config)
    assert ended.notes == [
        f"note: 6 runs made, 0 were there; all 6 in {tmp_path / 'small' / 'runs.parquet'}"
    ]
    assert names(tmp_path / "small") == {"runs.parquet", "sweep.json", ".lock"}
    assert json.loads((tmp_path / "small" / "sweep.json").read_text())["complete"] is True
    rows = pd.read_parquet(tmp_path / "small" / "runs.parquet")
    assert list(zip(rows["policy"], rows["rate_scale"], strict=True)) == [
        (policy, rate) for policy in ("vllm", "sarathi,chunk_size=64") for rate in (1.0, 2.0, 4.0)
    ]
    run = ("--limit", 12, "--blocks", 400, "--slo", "ttft=1", "--rate-scale", 2)
    schedsim("run", "-q", *run, "--policy", "sarathi,chunk_size=64", "--out", tmp_path / "run")
    told, row = summary(tmp_path / "run"), rows.iloc[4]
    assert row["latency.whole.ttft_s.p90"] == told["latency"]["whole"]["ttft_s"]["p90"]
    assert row["goodput.whole.share"] == told["goodput"]["whole"]["share"]
    assert row["requests.finished"] == told["requests"]["finished"]
    assert row["error"] is None or pd.isna(row["error"])


def test_a_second_time_nothing_is_left_to_do(config: Path, tmp_path: Path) -> None:
    swept(config)
    dataset = tmp_path / "small" / "runs.parquet"
    content = dataset.read_bytes()
    again = swept(config)
    assert again.notes == [f"note: 0 runs made, 6 were there; all 6 in {dataset}"]
    assert dataset.read_bytes() == content
    assert "6 runs, 6 of them" in schedsim("sweep", config, "--dry-run").stdout


def test_a_grid_that_grew_makes_only_what_is_new(config: Path, tmp_path: Path) -> None:
    swept(config)
    config.write_text(SMALL.replace("4.0]", "4.0, 8.0]"))
    assert swept(config).notes[0].startswith("note: 2 runs made, 6 were there; all 8 in")
    described = (tmp_path / "small" / "sweep.json").read_text()
    config.write_text(SMALL)
    message = only_error(schedsim("sweep", config, "--jobs", 1))
    assert "small holds 2 runs that this configuration does not name" in message
    assert (tmp_path / "small" / "sweep.json").read_text() == described


def test_a_run_that_fails_is_a_row_that_says_why(config: Path, tmp_path: Path) -> None:
    config.write_text(
        SMALL.replace("blocks = 400", "").replace(
            "[grid]", 'gpu = "a100-40gb"\n[grid]\nmodel = ["llama-3-8b", "llama-3-70b"]'
        )
    )
    ended = schedsim("sweep", config, "--jobs", 1)
    assert ended.exit_code == 2
    assert only_error(ended).startswith("error: 6 of 12 runs failed, see column error; the first")
    rows = pd.read_parquet(tmp_path / "small" / "runs.parquet")
    assert rows["error"].notna().tolist() == [model == "llama-3-70b" for model in rows["model"]]


def test_capacity_is_the_highest_rate_that_keeps_the_objective(tmp_path: Path) -> None:
    file = tmp_path / "capacity.toml"
    file.write_text(
        """
[settings]
limit = 60
slo_ttft = 0.2
gpu = "a100-40gb"
[grid]
policy = ["vllm", "static"]
[capacity]
setting = "rate_scale"
low = 0.25
high = 16
tolerance = 0.2
keep = ["goodput.whole.share >= 0.8", "requests.rejected <= 0"]
"""
    )
    assert (
        "2 searches for the highest rate_scale from 0.25 to 16"
        in schedsim("sweep", file, "--dry-run").stdout
    )
    ended = swept(file)
    assert "below 0.25" in ended.stdout  # static keeps it nowhere
    rows = pd.read_parquet(tmp_path / "capacity" / "runs.parquet")
    searched = rows[rows["policy"] == "vllm"]
    (capacity,) = searched.loc[searched["is_capacity"], "rate_scale"]
    assert (searched["kept"] == (searched["goodput.whole.share"] >= 0.8)).all()
    assert searched.loc[searched["kept"], "rate_scale"].max() == capacity
    missed = searched.loc[~searched["kept"], "rate_scale"].min()
    assert capacity < missed <= 1.2 * capacity
    content = (tmp_path / "capacity" / "runs.parquet").read_bytes()
    assert swept(file).notes[0].startswith(f"note: 0 runs made, {len(rows)} were there")
    assert (tmp_path / "capacity" / "runs.parquet").read_bytes() == content


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("limit = 12", "limits = 12", "unknown setting 'limits'. Did you mean 'limit'?"),
        ("limit = 12", "limit = -1", "limit=-1 must be at least 1"),
        ("[grid]", "[grids]", "unknown key 'grids'; known: settings, grid, capacity"),
        ('"vllm"', '"vlm"', "unknown policy 'vlm'. Did you mean 'vllm'?"),
        ("[1.0, 2.0, 4.0]", "[]", "grid.rate_scale: "),
        ("[1.0, 2.0, 4.0]", "1.0", "grid.rate_scale: "),
        ("limit = 12", 'trace = "nowhere.csv"', "trace 'nowhere.csv': no such file"),
        ("limit = 12", 'trace = "generate:azure"', "unknown preset 'azure'"),
        ("limit = 12", "limit = ", "is not TOML"),
        ("[grid]", '[grid]\n"policy.chunk" = [1]', "has no parameter 'chunk'"),
        ("[grid]", '[grid]\n"blocks.size" = [1]', "blocks is 400, which has no parameters"),
        ("[grid]", '[grid]\n"policy." = [1]', "write setting.parameter"),
    ],
)
def test_a_wrong_file_is_told_before_anything_runs(
    config: Path, old: str, new: str, message: str
) -> None:
    config.write_text(SMALL.replace(old, new))
    assert message in refused("sweep", config)
    assert not config.with_suffix("").exists()


def test_a_wrong_search_is_told(config: Path) -> None:
    def told(capacity: str, settings: str = SMALL) -> str:
        config.write_text(f"{settings}[capacity]\n{capacity}")
        return refused("sweep", config)

    bounds = 'low = 1.0\nhigh = 2.0\nkeep = ["goodput.whole.share >= 0.9"]\n'
    assert "what capacity searches" in told(f'setting = "rate_scale"\n{bounds}')
    rest = SMALL.replace("rate_scale", "token_scale")
    assert "seed is not searched" in told(f'setting = "seed"\n{bounds}', rest)
    wrong = bounds.replace("low = 1.0", "low = 3.0")
    assert "low 3.0 must be below 2.0" in told(f'setting = "rate_scale"\n{wrong}', rest)
    wrong = bounds.replace(">=", ">")
    assert "write FIGURE <= NUMBER" in told(f'setting = "rate_scale"\n{wrong}', rest)
    wrong = bounds.replace("goodput.whole.share", "goodput.share")
    config.write_text(f'{rest}[capacity]\nsetting = "rate_scale"\n{wrong}')
    ended = schedsim("sweep", config, "--jobs", 1)
    assert ended.exit_code == 2
    assert "a run has no figure 'goodput.share'" in only_error(ended)


def test_a_directory_with_something_else_is_left_alone(config: Path, tmp_path: Path) -> None:
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "thesis.tex").write_text("")
    assert "holds no sweep; results are never overwritten" in refused("sweep", config)
    assert names(tmp_path / "small") == {"thesis.tex"}
    assert "no such file" in refused("sweep", tmp_path / "nothing.toml")
    assert "the suffix must be .toml" in refused("sweep", tmp_path / "small" / "thesis.tex")
    assert "name a configuration" in refused("sweep")


def test_the_example_is_a_sweep(tmp_path: Path) -> None:
    file = tmp_path / "example.toml"
    file.write_text(schedsim("sweep", "--example").stdout)
    assert "6 runs, 0 of them" in schedsim("sweep", file, "--dry-run").stdout


@pytest.mark.skipif(importlib.util.find_spec("yaml") is None, reason="PyYAML is not installed")
def test_yaml_is_read_alike(tmp_path: Path) -> None:
    file = tmp_path / "small.yaml"
    file.write_text(
        "settings: {limit: 5}\ngrid:\n- policy: [vllm]\n- policy: [sarathi]\n"
        "  policy.chunk_size: [64, 128]\n"
    )
    swept(file)
    rows = pd.read_parquet(tmp_path / "small" / "runs.parquet")
    assert rows["policy"].tolist() == ["vllm", "sarathi,chunk_size=64", "sarathi,chunk_size=128"]
    assert rows["policy.chunk_size"].fillna(0).tolist() == [0, 64, 128]
    file.write_text("settings: [")
    assert "is not YAML" in refused("sweep", file)


def start_sweep(config: Path, out: Path, jobs: int) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        command(["sweep", config, "--out", out, "--jobs", jobs]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=plain_environment(),
        start_new_session=True,
    )


def parts(out: Path) -> int:
    return len(list((out / "parts").glob("[!.]*.json")))


def wait_for_a_part(running: "subprocess.Popen[bytes]", out: Path) -> None:
    """A run of the sweep is done, or all of it."""
    while running.poll() is None and not parts(out):
        time.sleep(0.01)


def wait_for_all_of(group: int) -> None:
    """Every process of the group is gone, workers included."""
    for _ in range(2000):
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    raise AssertionError("workers outlive the sweep that they work for")


@pytest.mark.parametrize(
    ("seeds", "kills"), [(6, 2), pytest.param(100, 10, marks=pytest.mark.slow)]
)
def test_a_sweep_killed_at_random_moments_ends_as_one_left_alone(
    tmp_path: Path, seeds: int, kills: int
) -> None:
    config, out = tmp_path / "sweep.toml", tmp_path / "killed"
    config.write_text(KILLED.format(seeds=list(range(seeds))))
    total, dice = 2 * seeds, random.Random(seeds)
    swept(config, "--out", tmp_path / "alone")
    # Early enough for a machine on which this test gets its turn late.
    marks = sorted(dice.sample(range(1, total // 2), kills))
    for mark in marks:
        running = start_sweep(config, out, jobs=2)
        while running.poll() is None and parts(out) < mark:
            time.sleep(0.002)
        time.sleep(dice.uniform(0.0, 0.05))
        running.send_signal(signal.SIGKILL)
        running.communicate()
        assert running.returncode == -signal.SIGKILL
        wait_for_all_of(running.pid)
    there = parts(out)
    assert marks[-1] <= there < total
    running = start_sweep(config, out, jobs=2)
    told = running.communicate(timeout=600)[1].decode()
    assert running.returncode == 0, told
    assert f"{total - there} runs made, {there} were there; all {total}" in told
    assert names(out) == {"runs.parquet", "sweep.json", ".lock"}
    alone = (tmp_path / "alone" / "runs.parquet").read_bytes()
    assert (out / "runs.parquet").read_bytes() == alone


def test_one_process_at_a_time_has_a_sweep(tmp_path: Path) -> None:
    config, out = tmp_path / "sweep.toml", tmp_path / "out"
    config.write_text(KILLED.format(seeds=list(range(200))))
    running = start_sweep(config, out, jobs=1)
    wait_for_a_part(running, out)
    assert "another process runs the sweep in" in refused("sweep", config, "--out", out)
    running.send_signal(signal.SIGINT)
    told = running.communicate(timeout=60)[1].decode()
    assert running.returncode == 130
    assert f"{parts(out)} runs are kept in {out}" in told


def test_a_worker_that_is_killed_is_told(tmp_path: Path) -> None:
    config, out = tmp_path / "sweep.toml", tmp_path / "out"
    config.write_text(KILLED.format(seeds=list(range(200))))
    running = start_sweep(config, out, jobs=2)
    wait_for_a_part(running, out)
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    workers = [
        int(child)
        for child in children
        if "spawn_main" in Path(f"/proc/{child}/cmdline").read_text()
    ]
    os.kill(workers[0], signal.SIGKILL)
    told = running.communicate(timeout=60)[1].decode()
    assert running.returncode == 2
    assert "a worker process was killed" in told
    assert "Traceback" not in told
    wait_for_all_of(running.pid)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("ray") is None, reason="Ray is not installed")
def test_a_ray_cluster_that_loses_a_worker_gives_the_same_dataset(tmp_path: Path) -> None:
    config, out = tmp_path / "sweep.toml", tmp_path / "ray"
    config.write_text(KILLED.format(seeds=list(range(20))))
    swept(config, "--out", tmp_path / "alone")
    running = subprocess.Popen(
        command(["sweep", config, "--out", out, "--jobs", 2, "--backend", "ray"]),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=plain_environment(),
    )
    while running.poll() is None and parts(out) < 5:
        time.sleep(0.005)
    listed = subprocess.run(["pgrep", "-f", "ray::_run_in_worker"], capture_output=True, text=True)
    worker = int(listed.stdout.split()[0])
    os.kill(worker, signal.SIGKILL)
    told = running.communicate(timeout=300)[1].decode()
    assert running.returncode == 0, told
    alone = (tmp_path / "alone" / "runs.parquet").read_bytes()
    assert (out / "runs.parquet").read_bytes() == alone


@pytest.mark.skipif(importlib.util.find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_the_backend_says_what_to_install(config: Path) -> None:
    message = refused("sweep", config, "--backend", "ray")
    assert "Ray is not installed; pip install 'schedsim[ray]' brings it" in message
