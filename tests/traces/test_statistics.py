"""Statistics reproduce the published figures of the shared traces, to the printed digits."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given

from schedsim.traces import Trace, read_trace
from schedsim.traces.statistics import TokenStatistics, describe, prefix_hits, spearman
from tests.traces.strategies import traces

# Figures and digits as in ../shared/traces/README.md.
PUBLISHED: dict[str, dict[str, object]] = {
    "azure-2023/AzureLLMInferenceTrace_code.csv.gz": {
        "span": 3435.9,
        "rate": 2.57,
        "peak": (67, 32.7, 10.5),
        "iat_cv": 13.15,
        "iod": (13.2, 71.6, 164.0),
        "prompt": (1469, 7303, 7436, 7437),
        "output": (13, 90, 251, 1899),
        "means": (2048, 27.9),
        "spearman": -0.02,
    },
    "azure-2023/AzureLLMInferenceTrace_conv.csv.gz": {
        "span": 3501.7,
        "rate": 5.53,
        "peak": (16, 9.8, 8.5),
        "iat_cv": 1.09,
        "iod": (1.4, 3.9, 16.1),
        "prompt": (1020, 4083, 4142, 14050),
        "output": (129, 451, 601, 1000),
        "means": (1155, 211),
        "spearman": 0.07,
    },
    "mooncake-fast25/conversation_trace.jsonl.gz": {
        "span": 3537.0,
        "rate": 3.40,
        "peak": (28, 6.7, 4.1),
        "iat_cv": 3.03,
        "iod": (7.9, 2.1, 2.9),
        "prompt": (6909, 39551, 85400, 126195),
        "output": (350, 698, 1119, 2000),
        "means": (12035, 343),
        "spearman": 0.07,
    },
}


def printed(value: float, digit: float) -> object:
    """Equal once rounded to `digit`, whichever way a half goes."""
    return pytest.approx(value, abs=digit / 2 * (1 + 1e-9))


def percentiles(tokens: TokenStatistics) -> tuple[float, ...]:
    return (tokens.p50, tokens.p95, tokens.p99, tokens.max)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_figures(shared_traces: Path, name: str) -> None:
    figures = PUBLISHED[name]
    found = describe(read_trace(shared_traces / name))
    arrivals = found.arrivals
    assert arrivals is not None
    assert arrivals.span_s == printed(figures["span"], 0.1)
    assert arrivals.mean_rate == printed(figures["rate"], 0.01)
    assert tuple(arrivals.peak_rate.values()) == printed(figures["peak"], 0.1)
    assert arrivals.iat_cv == printed(figures["iat_cv"], 0.01)
    assert tuple(arrivals.iod.values()) == printed(figures["iod"], 0.1)
    assert percentiles(found.prompt) == printed(figures["prompt"], 1)
    assert percentiles(found.output) == printed(figures["output"], 1)
    prompt_mean, output_mean = figures["means"]  # type: ignore[misc]
    assert found.prompt.mean == printed(prompt_mean, 1)
    assert found.output.mean == printed(output_mean, 0.1 if output_mean < 100 else 1)
    assert found.spearman == printed(figures["spearman"], 0.01)
    assert found.rows_read == found.rows


def test_published_prefix_figures(shared_traces: Path) -> None:
    mooncake = describe(read_trace(shared_traces / "mooncake-fast25/conversation_trace.jsonl.gz"))
    assert mooncake.prefix is not None
    assert mooncake.prefix.blocks == 288_500
    assert mooncake.prefix.distinct_blocks == 182_790
    assert mooncake.prefix.block_hit_share == printed(0.366, 1e-3)
    assert mooncake.prefix.token_hit_share == printed(0.374, 1e-3)
    assert mooncake.prefix.reused_share == printed(0.24, 1e-2)


@pytest.mark.parametrize(
    ("name", "sessions", "prompt", "output", "hit"),
    [
        ("0001-0100", 96, (108002, 405193, 672537, 838246), (236, 1271, 3257, 15390), 0.952),
        ("0251-0350", 99, (93792, 143679, 151282, 167120), (257, 1510, 3918, 10419), 0.960),
        ("0551-0650", 100, (88908, 157760, 232298, 463163), (193, 1467, 3541, 13736), 0.974),
    ],
)
def test_published_agentic_figures(
    shared_traces: Path,
    name: str,
    sessions: int,
    prompt: tuple[int, ...],
    output: tuple[int, ...],
    hit: float,
) -> None:
    # The figures count the rows of zero output tokens, which are dropped unless kept.
    path = shared_traces / f"agentic-coding/traces_{name}.jsonl.gz"
    found = describe(read_trace(path, zero_tokens="keep"))
    assert found.sessions is not None
    assert found.prefix is not None
    assert found.sessions.sessions == sessions
    assert percentiles(found.prompt) == printed(prompt, 1)
    assert percentiles(found.output) == printed(output, 1)
    assert found.prefix.block_hit_share == printed(hit, 1e-3)


@given(trace=traces())
def test_prefix_hits_are_those_of_an_infinite_cache(trace: Trace) -> None:
    if trace.blocks is None or not len(trace.blocks.ids):
        return
    seen: set[int] = set()
    for row, hits in enumerate(prefix_hits(trace.blocks)):
        chain = trace.blocks.ids[slice(*trace.blocks.offsets[row : row + 2])].tolist()
        expected = next((i for i, block in enumerate(chain) if block not in seen), len(chain))
        assert hits == expected
        seen.update(chain)


@given(trace=traces())
def test_every_trace_can_be_described(trace: Trace) -> None:
    found = describe(trace)
    assert found.rows_read == found.rows + sum(found.dropped.values())
    assert found.prompt.p50 <= found.prompt.p95 <= found.prompt.p99 <= found.prompt.max


def test_rank_correlation_takes_ties_at_their_mean() -> None:
    from scipy.stats import spearmanr

    rng = np.random.default_rng(5)
    first, second = rng.integers(0, 9, 200), rng.integers(0, 4, 200)
    assert spearman(first, second) == pytest.approx(spearmanr(first, second).statistic, abs=1e-12)
    assert spearman(first, np.ones(200, dtype=np.int64)) is None
