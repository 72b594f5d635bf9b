"""What a reproduction takes from a simulated run: one row of plain figures."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from schedsim.experiments.in_line import seconds_in_line
from schedsim.experiments.reproductions.base import Row
from schedsim.results import Result
from schedsim.traces.trace import Trace, TraceSource


def trace_of(
    name: str,
    arrival: Any,
    prompts: Any,
    outputs: Any,
    tenant: Any = None,
    limits: Any = None,
) -> Trace:
    """A trace from columns; `limits` are what the clients would have sent as max_tokens."""
    source = TraceSource(name, "generated", rows_read=len(prompts))
    return Trace(
        np.asarray(arrival, dtype=np.float64),
        np.asarray(prompts, dtype=np.int32),
        np.asarray(outputs, dtype=np.int32),
        source,
        tenant=None if tenant is None else np.asarray(tenant, dtype=np.int64),
        max_output_tokens=None if limits is None else np.asarray(limits, dtype=np.int32),
    )


def poisson(rng: np.random.Generator, rate: float, count: int) -> Any:
    """`count` arrival times from 0, at `rate` requests per second."""
    gaps = rng.exponential(1.0 / rate, count)
    gaps[0] = 0.0
    return np.cumsum(gaps)


def highest_rate(
    is_borne: Callable[[float], bool], low: float, high: float, precision: float
) -> float:
    """The highest rate between `low` and `high` that is borne, `precision` its relative error.

    It doubles from `low`, then halves: rates far beyond are slow to simulate. 0 if not even `low`
    is borne; `high` if all are.
    """
    if not is_borne(low):
        return 0.0
    over = 2 * low
    while is_borne(over):
        if over >= high:
            return high
        low, over = over, min(2 * over, high)
    while over > (1.0 + precision) * low:
        middle = math.sqrt(low * over)
        if is_borne(middle):
            low = middle
        else:
            over = middle
    return low


def figures_of(result: Result) -> Row:
    """A row; `…_in_line` are means over the time in which requests wait, None if none ever does."""
    summary, requests = result.summary, result.requests
    throughput, latency = summary["throughput"]["whole"], summary["latency"]["whole"]
    running, tokens = _in_line(result)
    return {
        "requests": float(len(requests)),
        "finished": float(summary["requests"]["finished"]),
        "makespan_s": summary["makespan_s"],
        "requests_per_s": throughput["requests_per_s"],
        "output_tokens_per_s": throughput["output_tokens_per_s"],
        "total_tokens_per_s": throughput["total_tokens_per_s"],
        "normalized_latency_s": float(requests["normalized_latency_s"].mean()),
        "ttft_p50_s": latency["ttft_s"]["p50"],
        "ttft_p99_s": latency["ttft_s"]["p99"],
        "itl_p99_s": latency["itl_s"]["p99"],
        "itl_max_s": latency["itl_s"]["max"],
        "queue_p50_s": latency["queue_s"]["p50"],
        "requests_at_once": summary["batch_size"]["requests_time_weighted"],
        "requests_at_once_in_line": running,
        "kv_used": summary["memory"]["used"],
        "kv_used_in_line": tokens,
        "preemptions": float(summary["preemptions"]),
    }


def _in_line(result: Result) -> tuple[float | None, float | None]:
    """Mean requests at once and share of slots with tokens while somebody waits."""
    steps, seconds = result.steps, seconds_in_line(result)
    total = float(seconds.sum())
    if total == 0.0:
        return None, None
    capacity = result.summary["memory"]["capacity_tokens"]
    running = float((steps["running"].to_numpy() * seconds).sum()) / total
    return running, float((steps["stored_tokens"].to_numpy() * seconds).sum()) / total / capacity
