"""`vllm-v0` and `sarathi` against Vidur's recorded runs, bit for bit, through the command line."""

import gzip
import json
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from schedsim.cli.app import app

CASES = {
    "cf_vllm_light": ("vllm-v0,padded_budget=true,running_order=arrival", 4096),
    "cf_sarathi_pressure": ("sarathi,chunk_size=512", 1024),
}


@pytest.fixture(scope="module", params=sorted(CASES))
def run(
    request: pytest.FixtureRequest, shared_oracles: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """The oracle's folder and the directory of our run of the same case."""
    case = shared_oracles / "vidur" / request.param
    policy, blocks = CASES[request.param]
    trace = case / "requests.csv"
    out = tmp_path_factory.mktemp(request.param) / "run"
    arguments = ["run", str(trace), "--policy", policy, "--blocks", str(blocks)]
    arguments += ["--step-time", "linear:vidur-closed-form", "--max-seqs", "128"]
    arguments += ["--token-budget", "4096", "--decisions", "--out", str(out)]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    return case, out


def test_every_batch_is_the_recorded_one(run: tuple[Path, Path]) -> None:
    case, out = run
    with gzip.open(case / "batches.jsonl.gz", "rt") as lines:
        batches = [json.loads(line) for line in lines]
    with gzip.open(out / "decisions.jsonl.gz", "rt") as lines:
        records = [json.loads(line) for line in lines][1:]
    steps = pd.read_parquet(out / "steps.parquet")
    assert len(records) == len(steps) == len(batches)
    prompts: dict[str, int] = {}
    for index, (record, batch) in enumerate(zip(records, batches, strict=True)):
        items = []
        for name, tokens, kind, computed in record["scheduled"]:
            # Vidur counts the newest token, which is not in the cache yet, as processed.
            decodes = kind == "run" and computed >= prompts.get(name, computed + 1)
            items.append([int(name[1:]), tokens, computed + decodes, int(decodes)])
            if not decodes and name in record["sampled"]:
                prompts[name] = computed + tokens
        for name in record["preempted"]:
            prompts.pop(name, None)
        assert items == batch["items"], f"batch {index}"
    assert steps["start"].tolist() == [batch["start"] for batch in batches]
    ends = [end[-1] for end in steps["end"]]
    assert ends == [batch["start"] + batch["dur"] for batch in batches]


def test_every_time_of_every_request_is_the_recorded_one(run: tuple[Path, Path]) -> None:
    case, out = run
    theirs = pd.read_csv(case / "results.csv")
    ours = pd.read_parquet(out / "requests.parquet")
    assert (ours["status"] == "finished").all()
    for our_column, their_column in {
        "admitted": "scheduled_at",
        "first_token": "prefill_completed_at",
        "finished": "completed_at",
        "preemptions": "num_restarts",
        "ttft_s": "ttft",
        "e2e_s": "e2e",
        "tpot_s": "tpot",
    }.items():
        assert ours[our_column].tolist() == theirs[their_column].tolist(), our_column
