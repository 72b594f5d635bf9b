"""Every shipped policy on the CPU engine under memory pressure, and decided again in simulation."""

import dataclasses
import gzip
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

pytest.importorskip("torch")

import schedsim
from schedsim.policies import POLICIES
from tests.cli.commands import schedsim as command
from tests.cli.commands import summary
from tests.executor.chats import chats


class Setting(NamedTuple):
    """What a policy is run with, and which counts of the run's summary must not be 0."""

    spec: str
    memory: str = "paged"
    happens: tuple[str, ...] = ("preemptions", "recomputed_tokens")


PREFIXES = "paged,prefix_caching=true"
HOST = "paged,host_blocks=60"
SWAPS = ("preemptions", "swapped_blocks")

SETTINGS = {
    "vllm": Setting("vllm"),
    "vllm@0.33": Setting("vllm@0.33", PREFIXES, ("preemptions", "cached_tokens")),
    "vllm@0.19": Setting("vllm@0.19", PREFIXES, ("preemptions", "cached_tokens")),
    "vllm@0.11": Setting("vllm@0.11", PREFIXES, ("preemptions", "cached_tokens")),
    "vllm-v0": Setting("vllm-v0,preemption=swap", HOST, SWAPS),
    "sarathi": Setting("sarathi,chunk_size=16,low_chunk_size=4,falling_tokens=64"),
    "static": Setting("static,batch_size=4", happens=()),
    "orca": Setting("orca,reserve=limit", happens=()),
    "tgi": Setting("tgi", happens=()),
    "trtllm": Setting("trtllm,capacity=max-utilization", PREFIXES),
    "past-future": Setting("past-future,lengths=predicted,margin=0"),
    "sglang": Setting(
        "sglang,order=lpm,conservativeness=0.1", "radix", ("preemptions", "cached_tokens")
    ),
    "composed": Setting("order=srtf,admit=chunk,victim=longest,mode=swap", HOST, SWAPS),
    "sjf": Setting("sjf"),
    "srtf": Setting("srtf,preemption=swap", HOST, SWAPS),
    "priority": Setting("priority,displaces=true"),
    "las": Setting("las,quantum=4,preemption=swap", HOST, SWAPS),
    "mlfq": Setting("mlfq", HOST, SWAPS),
    "ltr": Setting("ltr,starvation=5,period=3", HOST, SWAPS),
    "multi-bin": Setting("multi-bin,max_wait=0.05", happens=()),
    "multi-bin-continuous": Setting("multi-bin-continuous"),
    "mcsf": Setting("mcsf"),
    "nested-wait": Setting("nested-wait,boundaries=4/8,in_flight=6,max_wait=0.05"),
    "vtc": Setting("vtc"),
    "dlpm": Setting("dlpm,quantum=50", PREFIXES, ("preemptions", "cached_tokens")),
    "edf": Setting("edf,preemptive=true,preemption=swap", HOST, SWAPS),
    "qoserve": Setting("qoserve"),
    "andes": Setting("andes", HOST, SWAPS),
}


def shared_chats() -> schedsim.Trace:
    """`chats` of three tenants and three priorities."""
    trace = chats()
    number = np.arange(len(trace))
    return dataclasses.replace(trace, tenant=number % 9 % 3, priority=number % 3)


def records(directory: Path) -> list[dict[str, Any]]:
    """The decisions of a run, without the line that says with what they were taken."""
    text = gzip.decompress((directory / "decisions.jsonl.gz").read_bytes()).decode()
    return [json.loads(line) for line in text.splitlines()[1:]]


def test_every_policy_is_executed() -> None:
    assert sorted(SETTINGS) == sorted(POLICIES)


@pytest.mark.parametrize("lag", [0, 1])
@pytest.mark.parametrize("name", SETTINGS)
def test_the_simulator_takes_the_decisions_of_the_engine(
    tmp_path: Path, name: str, lag: int
) -> None:
    spec, memory, happens = SETTINGS[name]
    trace = tmp_path / "chats.jsonl"
    schedsim.write_trace(shared_chats(), trace)
    common = (trace, "--policy", spec, "--memory", memory, "--decision-lag", lag, "--all-at-once")
    common += ("--blocks", 40, "--block-size", 4, "--max-seqs", 6, "--max-output", "factor:1.5")
    common += ("--predictor", "lognormal,sigma=1", "--slo", "ttft=0.02,tpot=0.005")
    common += ("--decisions", "-q")
    device = ("--device", "cpu", "--threads", 1)
    ended = command("execute", *common, *device, "--check", "--out", tmp_path / "real")
    assert ended.exit_code == 0, ended.stderr
    replay = ("--model", "tiny", "--step-time", f"recorded:{tmp_path / 'real'}")
    ended = command("run", *common, *replay, "--out", tmp_path / "replayed")
    assert ended.exit_code == 0, ended.stderr
    real = records(tmp_path / "real")
    assert any("blocks" in str(record) for record in real)
    assert records(tmp_path / "replayed") == real
    counted = summary(tmp_path / "real")
    assert counted["requests"]["finished"] == len(shared_chats())
    assert not [count for count in happens if not counted[count]]
