"""`vllm` against vLLM's own schedulers, iteration by iteration, block ids included."""

import inspect
from pathlib import Path

import pytest

from schedsim.experiments.conformance import conform
from schedsim.experiments.recording import open_recording
from schedsim.memory import MANAGERS
from schedsim.results.difference import Comparison
from schedsim.scheduler import Scheduler

SYNCHRONOUS = (
    "c1_chunked_mix",
    "c2_heavy_preemption",
    "c3_first_chunk_admission",
    "c4_prefix_caching",
    "c5_prefix_caching_preemption",
    "c6_priority_preemption",
    "c7_longprefill_watermark",
    "c8_multi_victim_steps",
)
ASYNCHRONOUS = (
    "a1_chunked_mix",
    "a2_heavy_preemption",
    "a3_first_chunk_admission",
    "a4_prefix_caching",
    "a5_prefix_caching_preemption",
)
RECORDINGS = Path(__file__).parent / "oracle" / "recordings"


def assert_same(path: Path, policy: str) -> Comparison:
    recording = open_recording(path)
    comparison = conform(recording, policy, check_every=1)
    assert comparison.same, comparison.difference
    assert comparison.iterations == sum(1 for _ in recording.file.lines())
    return comparison


@pytest.mark.parametrize("case", SYNCHRONOUS)
def test_every_iteration_equals_vllms(case: str, shared_oracles: Path) -> None:
    assert_same(shared_oracles / "vllm_scheduler" / "cases" / f"{case}.jsonl", "vllm")


@pytest.mark.skipif(
    "decision_lag" not in inspect.signature(Scheduler).parameters,
    reason="the scheduler does not overlap decisions yet",
)
@pytest.mark.parametrize("case", ASYNCHRONOUS)
def test_every_overlapping_iteration_equals_vllms(case: str, shared_oracles: Path) -> None:
    assert_same(shared_oracles / "vllm_scheduler" / "cases" / f"{case}.jsonl", "vllm")


@pytest.mark.parametrize(
    ("case", "policy"),
    [
        ("c2_heavy_preemption", "vllm,whole_sequence=false"),
        ("c3_first_chunk_admission", "vllm,whole_sequence=true"),
        ("c6_priority_preemption", "vllm,policy=fcfs"),
        ("c7_longprefill_watermark", "vllm,long_prefill_threshold=25"),
        ("c7_longprefill_watermark", "vllm,watermark=0.2"),
        ("c7_longprefill_watermark", "vllm,adaptive_threshold=true"),
        ("c1_chunked_mix", "vllm,prefill_interval=3"),
        ("c1_chunked_mix", "sarathi"),
    ],
)
def test_another_parameter_decides_otherwise(case: str, policy: str, shared_oracles: Path) -> None:
    path = shared_oracles / "vllm_scheduler" / "cases" / f"{case}.jsonl"
    comparison = conform(open_recording(path), policy)
    assert comparison.difference is not None
    assert comparison.difference.rows


# Of the random cases of make_cases.py, some small ones that a wrong version or parameter fails.
@pytest.mark.parametrize(
    ("case", "wrong"),
    [
        ("v033_adaptive_threshold", "vllm,adaptive_threshold=false"),
        ("v033_adaptive_threshold", "vllm,prefill_interval=1"),
        ("v033_prefill_interval", "vllm,prefill_interval=2"),
        ("v033_whole_prompts", "vllm,chunked_prefill=true"),
    ],
)
def test_settings_that_the_bundled_cases_lack(case: str, wrong: str) -> None:
    path = RECORDINGS / f"{case}.jsonl.gz"
    assert assert_same(path, "vllm").preemptions
    assert not conform(open_recording(path), wrong).same


@pytest.mark.skipif(
    "free_order" not in inspect.signature(MANAGERS["paged"]).parameters,
    reason="freed blocks cannot go to the back of the line yet",
)
@pytest.mark.parametrize(
    ("case", "policy", "wrong"),
    [
        ("v019_own_preemption", "vllm@0.19", "vllm@0.33"),
        ("v019_lone_threshold", "vllm@0.19", "vllm@0.33"),
        ("v011_first_chunk", "vllm@0.11", "vllm@0.19,whole_sequence=true"),
        ("v011_first_chunk_caching", "vllm@0.11", "vllm@0.19,whole_sequence=true"),
    ],
)
def test_older_versions_equal_their_own_schedulers(case: str, policy: str, wrong: str) -> None:
    path = RECORDINGS / f"{case}.jsonl.gz"
    assert assert_same(path, policy).preemptions
    assert not conform(open_recording(path), wrong).same


def test_vllm_resumes_with_tokens_that_were_never_computed() -> None:
    """The fault that `stale_keys` repeats: planned in iteration 4, preempted there, then found."""
    path = RECORDINGS / "v033_stale_keys.jsonl.gz"
    assert_same(path, "vllm")
    recording = open_recording(path)
    records = [recording.file.record(*line) for line in recording.file.lines()]
    before = [entry for record in records[:5] for entry in record["scheduled"]]
    computed = sum(tokens for name, tokens, *_ in before if name == "A")
    assert records[4]["preempted"] == ["A"]
    assert computed == 56
    assert records[6]["scheduled"][1] == ["A", 3, "resume", 60]
