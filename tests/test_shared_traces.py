"""Every shared trace runs to its end under every shipped policy, and no request is unaccounted.

The first 100 requests are part of every test run, all invariants asserted after every fifth
iteration (on the longest contexts every 25th): of each trace under four policies, of one under the
others. The rest, the first 500, and whole traces with the invariants after every 1000th iteration,
are `slow`.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from schedsim.cli.app import app
from schedsim.policies import POLICIES


class Case(NamedTuple):
    """A file under ../shared/traces, the flags that it needs, and its context length."""

    path: str
    max_model_len: int
    flags: tuple[str, ...] = ()


AGENTIC = ("--arrivals", "poisson:rate=0.02", "--think-cap", "60")
CASES = [
    Case("azure-2023/AzureLLMInferenceTrace_code.csv.gz", 8192),
    Case("azure-2023/AzureLLMInferenceTrace_conv.csv.gz", 8192),
    Case("vidur-format/splitwise_code.csv.gz", 8192),
    Case("vidur-format/splitwise_conv.csv.gz", 8192),
    Case("mooncake-fast25/conversation_trace.jsonl.gz", 65536, ("--rate-scale", "0.5")),
    Case("tracelab-sample/round_trace.jsonl.gz", 200_000),
    Case("agentic-coding/traces_0001-0100.jsonl.gz", 420_000, AGENTIC),
    Case("agentic-coding/traces_0251-0350.jsonl.gz", 200_000, AGENTIC),
    Case("agentic-coding/traces_0551-0650.jsonl.gz", 200_000, AGENTIC),
    *(
        Case(f"lengths/{name}.csv.gz", context, ("--arrivals", "poisson:rate=4"))
        for name, context in {
            "arxiv_long_online": 65536,
            "arxiv_summarization_stats_llama2_tokenizer_filtered_v2": 8192,
            "sharegpt_8k_filtered_stats_llama2_tokenizer": 8192,
            "sharegpt_val_10k_llama2": 8192,
        }.items()
    ),
]


def run(case: Case, policy: str, folder: Path, *flags: str) -> dict[str, Any]:
    """The request counts of a run through the command line."""
    arguments = ["run", str(folder / case.path), "--policy", policy, "--model", "llama-3-8b"]
    arguments += ["--max-model-len", str(case.max_model_len), *case.flags]
    arguments += ["--json", "--quiet", *flags]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    counts: dict[str, Any] = next(iter(json.loads(done.stdout).values()))["requests"]
    return counts


def check_counts(counts: dict[str, Any]) -> None:
    statuses = sum(counts[key] for key in ("finished", "rejected", "failed", "unfinished"))
    assert statuses == counts["kept"] == counts["read"] - sum(counts["dropped"].values())
    assert counts["unfinished"] == counts["failed"] == 0
    assert counts["finished"] >= 0.95 * counts["kept"], counts


def run_first(case: Case, policy: str, folder: Path, requests: int) -> None:
    """The first requests with all invariants asserted now and then."""
    # Just enough blocks for the longest request: memory pressure, and quick checks.
    block_size = 16 if case.max_model_len <= 8192 else 128
    blocks = case.max_model_len * 21 // 20 // block_size
    every = 5 if case.max_model_len <= 65536 else 25  # a check looks at every block
    flags = ["--limit", str(requests), f"--check={every}", "--max-output", "factor:2"]
    flags += ["--block-size", str(block_size), "--blocks", str(blocks)]
    check_counts(run(case, policy, folder, *flags))


all_cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.path.partition(".")[0])
all_policies = pytest.mark.parametrize("policy", sorted(POLICIES))


EVERY_TRACE = ("vllm", "vllm-v0", "sarathi", "static")
EVERY_POLICY = CASES[1]


def slow_but(cases: list[Case], is_quick: Callable[[Case, str], bool]) -> pytest.MarkDecorator:
    """Every policy on each of `cases`; `slow` but where `is_quick` says otherwise."""
    return pytest.mark.parametrize(
        ("case", "policy"),
        [
            pytest.param(
                case,
                policy,
                id=f"{case.path.partition('.')[0]}-{policy}",
                marks=() if is_quick(case, policy) else pytest.mark.slow,
            )
            for case in cases
            for policy in sorted(POLICIES)
        ],
    )


@slow_but(CASES, lambda case, policy: policy in EVERY_TRACE or case is EVERY_POLICY)
def test_the_first_hundred_requests(case: Case, policy: str, shared_traces: Path) -> None:
    run_first(case, policy, shared_traces, 100)


@pytest.mark.slow
@all_policies
@all_cases
def test_the_first_five_hundred_requests(case: Case, policy: str, shared_traces: Path) -> None:
    run_first(case, policy, shared_traces, 500)


@pytest.mark.slow
@all_policies
@all_cases
def test_every_trace_whole(case: Case, policy: str, shared_traces: Path) -> None:
    check_counts(run(case, policy, shared_traces, "--check=1000"))


WITH_ARRIVALS = CASES[:6]
SAME_REQUESTS = CASES[2:4]
"""Those of Azure's traces once more, in another format."""

WRITTEN = ("requests.parquet", "steps.parquet", "summary.json")


@slow_but(WITH_ARRIVALS, lambda case, policy: policy == "vllm" and case not in SAME_REQUESTS)
def test_the_first_five_thousand_are_the_same_one_by_one(
    case: Case, policy: str, shared_traces: Path, tmp_path: Path
) -> None:
    """With iterations run ahead and with every one decided by itself: the same bytes."""
    blocks = str(4 * case.max_model_len // 16)
    for name, more in (("ahead", ()), ("one-by-one", ("--no-fast-forward",))):
        flags = ("--limit", "5000", "--blocks", blocks, "--predictor", "oracle", *more)
        run(case, policy, shared_traces, *flags, "--out", str(tmp_path / name))
    for file in WRITTEN:
        ahead = tmp_path / "ahead" / file
        assert ahead.read_bytes() == (tmp_path / "one-by-one" / file).read_bytes(), file
