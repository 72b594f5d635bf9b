"""The summary of a run: one plain dictionary, the content of summary.json."""

from typing import Any

import numpy as np

from schedsim.request import Status
from schedsim.results.columns import Mask, RequestColumns, StepColumns
from schedsim.results.fairness import fairness
from schedsim.results.latency import Goodput, Latencies
from schedsim.results.record import RunRecord
from schedsim.results.steady import Window, find_steady
from schedsim.results.token_times import TokenTimes
from schedsim.results.usage import batch_size, memory_usage

SCHEMA_VERSION = 1


def summarize(
    record: RunRecord,
    requests: RequestColumns,
    steps: StepColumns,
    tokens: TokenTimes,
    latencies: Latencies,
) -> dict[str, Any]:
    """Every figure of the summary, in a fixed order; None where one does not exist."""
    run = _run_window(requests, steps, tokens)
    steady = find_steady(requests)
    window = None if steady is None else steady.window
    goodput = Goodput.of(requests, latencies, tokens)

    def over(part: Window | None, arrived: Mask) -> dict[str, Any]:
        return {
            "throughput": _throughput(requests, tokens, part),
            "latency": latencies.describe(arrived, _itl(tokens, part)),
            "goodput": None
            if goodput is None
            else goodput.describe(arrived, part and part.seconds),
        }

    everything = np.ones(len(requests), dtype=np.bool_)
    whole = over(run, everything)
    part = None if window is None else over(window, _arrived_in(requests, window))
    return {
        "schema_version": SCHEMA_VERSION,
        "interrupted": record.interrupted,
        "requests": _counts(record, requests),
        "prompt_tokens": int(requests.prompt_tokens[~np.isnan(requests.first_token)].sum()),
        "output_tokens": int(requests.emitted_tokens.sum()),
        "makespan_s": None if run is None else run.seconds,
        "steady_window_s": None if window is None else [window.start, window.end],
        "stable": None if steady is None else steady.stable,
        "throughput": _both("throughput", whole, part),
        "latency": _both("latency", whole, part),
        "goodput": None if goodput is None else _both("goodput", whole, part),
        "memory": memory_usage(steps, record.total_blocks, record.block_size),
        "preemptions": int(requests.preemptions.sum()),
        "cached_tokens": int(requests.cached_tokens.sum()),
        "recomputed_tokens": int(requests.recomputed_tokens.sum()),
        "swapped_blocks": int(steps.swapped_blocks.sum()),
        "copied_blocks": int(steps.copied_blocks.sum()),
        "batch_size": batch_size(steps),
        "fairness": fairness(requests, tokens, steps.end, record.end_time),
    }


def _both(name: str, whole: dict[str, Any], steady: dict[str, Any] | None) -> dict[str, Any]:
    return {"whole": whole[name], "steady": None if steady is None else steady[name]}


def _counts(record: RunRecord, requests: RequestColumns) -> dict[str, Any]:
    source = record.trace.source
    dropped = dict(sorted(source.dropped.items()))
    kept = len(requests)
    return {
        "read": source.rows_read or kept + sum(dropped.values()),
        "kept": kept,
        "dropped": dropped,
        **requests.status_counts(),
        "rejected_by_reason": requests.reason_counts(Status.REJECTED),
        "failed_by_reason": requests.reason_counts(Status.FAILED),
    }


def _run_window(requests: RequestColumns, steps: StepColumns, tokens: TokenTimes) -> Window | None:
    """From the first arrival to the end of the last iteration; None if nothing ran.

    Tokens are asked, too: a hook may have raised after they were booked, before the step was.
    """
    if not len(steps):
        return None
    ends = np.concatenate([steps.end[-1:], tokens.decode_ends[-1:], requests.first_token])
    return Window(float(np.nanmin(requests.arrival)), float(np.nanmax(ends)))


def _arrived_in(requests: RequestColumns, window: Window) -> Mask:
    return (requests.arrival >= window.start) & (requests.arrival <= window.end)


def _itl(tokens: TokenTimes, window: Window | None) -> Any:
    return tokens.itl_samples() if window is None else tokens.itl_samples(*window)


def _throughput(
    requests: RequestColumns, tokens: TokenTimes, window: Window | None
) -> dict[str, float | None]:
    """What was completed in the window, per second; None without a window that has a length."""
    if window is None or window.seconds <= 0:
        return dict.fromkeys(("requests_per_s", "output_tokens_per_s", "total_tokens_per_s"))
    started = window.holds(requests.first_token)
    output = int(started.sum()) + int(tokens.itl_samples(*window)[1].sum())
    prompt = int(requests.prompt_tokens[started].sum())
    return {
        "requests_per_s": int(window.holds(requests.finished).sum()) / window.seconds,
        "output_tokens_per_s": output / window.seconds,
        "total_tokens_per_s": (prompt + output) / window.seconds,
    }
