"""The executor on a GPU, by its command: parity with the simulator, and what goes wrong."""

import gc
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

torch = pytest.importorskip("torch")

import schedsim
from schedsim.config import MAX_BLOCKS, make_execution_settings, make_settings
from schedsim.executor.device import free_bytes
from schedsim.executor.graphs import Graphs
from schedsim.experiments.execution import DeviceModel, execute_policy, load_device_model
from schedsim.experiments.runs import RunOptions
from tests.cli.commands import RESULTS, manifest, names, only_error, refused, start, summary
from tests.cli.commands import schedsim as command
from tests.cli.test_broken_off import end_of, wait_for
from tests.core.harness import Jobs
from tests.executor.models import random_model, saved
from tests.executor.test_replayed_policies import (
    HOST,
    PREFIXES,
    SWAPS,
    Setting,
    records,
    shared_chats,
)

pytestmark = pytest.mark.gpu

FILES = RESULTS | {"decisions.jsonl.gz", "device.parquet"}

SETTINGS = {
    "vllm, caching": Setting("vllm", PREFIXES, ("preemptions", "cached_tokens")),
    "vllm, contiguous": Setting("vllm", "contiguous,reserve=predicted", ()),
    "vllm-v0, swap": Setting("vllm-v0,preemption=swap", HOST, SWAPS),
    "sarathi": Setting("sarathi,chunk_size=16,low_chunk_size=4,falling_tokens=64"),
    "srtf, swap": Setting("srtf,preemption=swap", HOST, SWAPS),
    "vtc": Setting("vtc"),
    "static": Setting("static,batch_size=4", happens=()),
}


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose head dimension the kernels take."""
    model = random_model("qwen3", head_dim=64)
    return saved(model, tmp_path_factory.mktemp("weights") / "model")


def executed(*arguments: object) -> None:
    ended = command("execute", *arguments, "--device", "cuda", "-q")
    assert ended.exit_code == 0, ended.stderr


@pytest.mark.parametrize("name", SETTINGS)
def test_the_simulator_takes_the_decisions_of_the_gpu(
    tmp_path: Path, weights: Path, name: str
) -> None:
    spec, memory, happens = SETTINGS[name]
    trace = tmp_path / "chats.jsonl"
    schedsim.write_trace(shared_chats(), trace)
    common = (trace, "--policy", spec, "--memory", memory, "--decision-lag", 1, "--all-at-once")
    blocks = 20 if memory == PREFIXES else 12
    common += (
        "--blocks",
        blocks,
        "--block-size",
        16,
        "--max-seqs",
        6,
        "--max-output",
        "factor:1.5",
    )
    common += ("--predictor", "lognormal,sigma=1", "--slo", "ttft=0.02,tpot=0.005", "--decisions")
    executed(*common, "--weights", weights, "--check", "--out", tmp_path / "real")
    replay = ("--model", weights, "--step-time", f"recorded:{tmp_path / 'real'}", "-q")
    ended = command("run", *common, *replay, "--out", tmp_path / "replayed")
    assert ended.exit_code == 0, ended.stderr
    assert records(tmp_path / "replayed") == records(tmp_path / "real")
    counted = summary(tmp_path / "real")
    assert counted["requests"]["finished"] == len(shared_chats())
    assert not [count for count in happens if not counted[count]]


def test_every_iteration_and_every_second_is_measured(tmp_path: Path, weights: Path) -> None:
    out = tmp_path / "out"
    load = ("--limit", 40, "--token-scale", 0.1, "--arrivals", "poisson:rate=20")
    executed(*load, "--weights", weights, "--out", out)
    steps = pd.read_parquet(out / "steps.parquet")
    assert (steps["gpu_s"] > 0).all()
    assert (steps["host_s"] > 0).all()
    assert steps["gap_s"].notna().sum() > 0
    assert (steps["gap_s"].dropna() >= 0).all()
    seconds = pd.read_parquet(out / "device.parquet")
    assert len(seconds) >= 2
    assert (seconds["power_w"] > 0).all()
    assert manifest(out)["device_state"]["seconds"] == len(seconds)
    assert manifest(out)["execution"]["attention"] == "triton"
    requests = pd.read_parquet(out / "requests.parquet")
    assert ((requests["released"] - requests["arrival"]).quantile(0.9) < 1e-3).all()


def test_a_second_policy_has_the_memory_of_the_first(tmp_path: Path) -> None:
    load = ("--limit", 6, "--token-scale", 0.05, "--all-at-once", "--model", "qwen3-0.6b")
    executed(*load, "--policy", "vllm", "--policy", "sarathi", "--out", tmp_path / "out")
    sizes = {
        manifest(tmp_path / "out" / policy)["config"]["resolved"]["num_blocks"]
        for policy in ("vllm", "sarathi")
    }
    assert len(sizes) == 1


JOBS = Jobs(prompts=[30, 14, 100, 15, 60, 47], outputs=[40, 60, 20, 45, 1, 70])


def loaded(weights: Path) -> DeviceModel:
    settings = make_settings(model=str(weights))
    execution = make_execution_settings(device="cuda", weights=str(weights), temperature=0.6)
    return load_device_model(settings, execution)


def decided(model: DeviceModel, weights: Path, out: Path, **changes: Any) -> list[dict[str, Any]]:
    """The decisions of a run of `JOBS` that comes to its end."""
    common = {"model": str(weights), "max_seqs": 6, "max_model_len": 256, "block_size": 16}
    settings = make_settings(**{**common, **changes})
    outcome = execute_policy(JOBS.trace(), settings, RunOptions(out, decisions=True), model=model)
    assert outcome.stopped is None, outcome.stopped
    return records(out)


def test_runs_of_the_same_sizes_replay_the_same_graphs(
    tmp_path: Path, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    capture, count = Graphs.capture, 0

    def counting(self: Graphs, *parts: Any) -> None:
        nonlocal count
        count += 1
        capture(self, *parts)

    monkeypatch.setattr(Graphs, "capture", counting)
    model = loaded(weights)
    swap = {"policy": "vllm-v0,preemption=swap", "memory": HOST, "blocks": 12}
    runs: list[tuple[bool, dict[str, Any]]] = [
        (True, {"blocks": 12}),
        (False, {"blocks": 12, "policy": "sarathi,chunk_size=16"}),
        (True, {"blocks": 40, "memory": "contiguous"}),
        (False, {"blocks": 12}),
        (False, {"blocks": 40, "memory": "contiguous"}),
        (True, swap),
        (False, swap),
    ]
    for number, (captures, changes) in enumerate(runs):
        count = 0
        found = decided(model, weights, tmp_path / f"kept-{number}", **changes)
        assert (count > 0) == captures, changes
        assert found == decided(loaded(weights), weights, tmp_path / f"own-{number}", **changes)


def test_what_is_kept_leaves_the_next_run_its_memory(tmp_path: Path) -> None:
    # Layers enough that none has a cache of more than 32 GiB, which no kernel takes.
    deep = random_model("qwen3", head_dim=64, num_hidden_layers=8)
    weights = saved(deep, tmp_path / "weights")
    model = loaded(weights)
    shape = model.decoder.config.shape
    block_bytes = 2 * shape.layers * shape.kv_heads * shape.head_dim * 2 * 256
    blocks = int(0.7 * model.free_bytes) // block_bytes
    for number, fewer in enumerate((0, 1, 0)):
        sizes = {"block_size": 256, "blocks": blocks - fewer}
        decided(model, weights, tmp_path / str(number), **sizes)


def broken_off(out: Path, *arguments: object) -> str:
    """The message of an execution that stops in the middle and keeps what it has in `out`."""
    ended = command("execute", *arguments, "--device", "cuda", "--decisions", "--out", out)
    assert ended.exit_code == 2, ended
    assert names(out) == FILES
    assert manifest(out)["complete"] is False
    return only_error(ended)


LOAD = ("--limit", 12, "--token-scale", 0.05, "--all-at-once", "--policy", "static,batch_size=1")


def test_nan_names_iteration_and_request(tmp_path: Path) -> None:
    model = random_model("qwen3", head_dim=64)
    with torch.no_grad():
        model.model.embed_tokens.weight[7] = torch.nan
    weights = saved(model, tmp_path / "weights")
    message = broken_off(tmp_path / "out", *LOAD, "--weights", weights)
    assert "hold NaN or infinity (bfloat16); check the weights" in message


def test_no_memory_in_an_iteration_keeps_what_finished(tmp_path: Path, weights: Path) -> None:
    trace = tmp_path / "trace.csv"
    long = 200_000
    trace.write_text(f"arrival,prompt_tokens,output_tokens\n0,10,2\n3,{long},2\n")
    config = json.loads((weights / "config.json").read_text())
    config |= {"num_hidden_layers": 8, "intermediate_size": 65536, "max_position_embeddings": 2**18}
    wide = tmp_path / "config.json"
    wide.write_text(json.dumps(config))
    gc.collect()
    free = free_bytes(torch.device("cuda"))  # with what torch keeps of earlier tests' caches
    blocks = (free - 20 * 2**30) // (2 * 8 * 2 * 64 * 2 * 16)
    assert 0 < blocks <= MAX_BLOCKS, f"{free} bytes are free"
    message = broken_off(
        tmp_path / "out", trace, "--model", wide, "--token-budget", long, "--blocks", blocks
    )
    assert "out of memory on cuda:0 in iteration " in message
    assert "which runs 200000 tokens of 1 requests; take fewer --blocks, " in message
    assert summary(tmp_path / "out")["requests"]["finished"] == 1


BREAKS_AT_REQUEST_5 = """
import sys
from schedsim.content import Content
from schedsim.cli import main
token_ids = Content.token_ids
def beyond(self, request, start, stop, vocab):
    return token_ids(self, request, start, stop, vocab) + (vocab << 20) * (request == 5)
Content.token_ids = beyond
sys.argv = ["schedsim", *sys.argv[1:]]
main()
"""


def test_a_cuda_error_keeps_what_finished(tmp_path: Path, weights: Path) -> None:
    out = tmp_path / "out"
    arguments = [*LOAD, "--weights", weights, "--device", "cuda", "--out", out]
    program = [sys.executable, "-c", BREAKS_AT_REQUEST_5, "execute", *map(str, arguments)]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2, ended.stderr
    assert "error: cuda:0 failed in iteration " in ended.stderr
    assert "CUDA_LAUNCH_BLOCKING=1 shows where" in ended.stderr
    assert manifest(out)["complete"] is False
    assert summary(out)["requests"]["finished"] == 5


def test_ctrl_c_keeps_what_finished(tmp_path: Path, weights: Path) -> None:
    out = tmp_path / "out"
    running = start(
        "execute", "--device", "cuda", "--weights", weights, "--token-scale", 0.05,
        "--all-at-once", "--max-seqs", 4, "--decisions", "--out", out,
    )  # fmt: skip
    wait_for(out / ".decisions.jsonl.gz.partial", 1000)
    time.sleep(0.3)
    running.send_signal(signal.SIGINT)
    ended = end_of(running)
    assert ended.exit_code == 130
    last = len(pd.read_parquet(out / "steps.parquet")) - 1
    assert f"interrupted by the user after iteration {last}" in only_error(ended)
    assert names(out) == FILES
    assert summary(out)["requests"]["finished"] > 0


def test_blocks_beyond_memory_are_refused_before_the_run() -> None:
    message = refused(
        "execute", *LOAD, "--device", "cuda", "--model", "qwen3-0.6b", "--blocks", 2**20
    )
    assert "take fewer with --blocks" in message


def test_a_block_size_without_a_kernel_is_refused(weights: Path) -> None:
    message = refused("execute", *LOAD, "--device", "cuda", "--weights", weights, "--block-size", 8)
    assert "a block size of 8: the Triton kernels take 16, 32, 64, 128, 256" in message


@pytest.mark.parametrize("memory", ["paged,host_blocks=200", "contiguous"])
def test_designed_batches_are_measured_on_the_kernels(
    tmp_path: Path, weights: Path, memory: str
) -> None:
    pytest.importorskip("scipy")
    out = tmp_path / "gpu.json"
    ended = command(
        *("calibrate", "--weights", weights, "--device", "cuda", "--memory", memory, "--out", out),
        *("--max-seqs", 20, "--token-budget", 3000, "--max-model-len", 256, "--passes", 2),
        *("--blocks", 2000, "--time-limit", 60, "--keep", tmp_path / "run", "--no-picture"),
    )
    assert ended.exit_code == 0, ended.stderr
    content = json.loads(out.read_text())
    provenance = content["provenance"]
    assert provenance["kernels"] == memory.partition(",")[0]
    assert provenance["runs"][0]["device_uuid"].startswith("GPU-")
    assert provenance["runs"][0]["decision_lag"] == 1
    assert content["padding"]["decodes"][-1] == 20
    assert content["ranges"]["launched"] == [0.0, 1.0]
    assert (content["ranges"]["swapped_blocks"][1] > 0) == ("host_blocks" in memory)
    assert content["parts"]["device"]["terms"]
