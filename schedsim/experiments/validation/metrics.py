"""The figures that a validation compares, where they stand in a summary, and when there are any."""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from schedsim.results.quantiles import QUANTILES

LEAST_BEYOND = 5
"""A quantile is compared where so many samples lie beyond it: p50 of 10, p90 of 50, p99 of 500."""

LATENCIES = ("ttft_s", "tpot_s", "itl_s", "e2e_s")
STATISTICS = ("mean", "p50", "p90", "p99")
_BEYOND = {name: 1.0 - q for name, q, _ in QUANTILES}

METRICS: dict[str, tuple[str, ...]] = {
    "makespan_s": ("makespan_s",),
    "requests_per_s": ("throughput", "whole", "requests_per_s"),
    "output_tokens_per_s": ("throughput", "whole", "output_tokens_per_s"),
    "total_tokens_per_s": ("throughput", "whole", "total_tokens_per_s"),
    **{
        f"{name}.{statistic}": ("latency", "whole", name, statistic)
        for name in LATENCIES
        for statistic in STATISTICS
    },
    "preemptions": ("preemptions",),
    "batch_size": ("batch_size", "requests_time_weighted"),
    "memory_used": ("memory", "used"),
    "memory_reserved": ("memory", "reserved"),
}
"""Where the compared figures stand in a summary."""

JUDGED = tuple(name for name, path in METRICS.items() if path[0] in ("throughput", "latency"))
"""Those that get a verdict; the others are there to explain."""


@dataclass(frozen=True, slots=True)
class Margins:
    """How far, in shares, a simulated figure may be off and still pass for the measured one."""

    throughput: float = 0.015
    latency: float = 0.03

    def of(self, metric: str) -> float:
        """That of a metric by name."""
        return self.latency if METRICS[metric][0] == "latency" else self.throughput


def figure(summary: dict[str, Any], metric: str) -> float | None:
    """A metric of a run; None where it has none, or too few samples for this quantile."""
    path = METRICS[metric]
    section, value = _at(summary, path[:-1]), _at(summary, path)
    if not isinstance(value, int | float):
        return None
    beyond = _BEYOND.get(path[-1])
    # 10 · (1 - 0.5) and 500 · (1 - 0.99) are to be 5, whatever binary fractions make of them
    if beyond is not None and section["count"] * beyond < LEAST_BEYOND - 1e-6:
        return None
    return float(value)


def mean_summary(summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The first of the summaries, with the means of all for the compared figures; a figure that one
    of them lacks is None."""
    found = deepcopy(summaries[0])
    for path in METRICS.values():
        values = [_at(summary, path) for summary in summaries]
        section = _at(found, path[:-1])
        if isinstance(section, dict) and path[-1] in section:
            whole = all(isinstance(value, int | float) for value in values)
            section[path[-1]] = sum(values) / len(values) if whole else None
    return found


def _at(summary: Any, path: Sequence[str]) -> Any:
    """What stands there; None where nothing does."""
    for key in path:
        summary = summary.get(key) if isinstance(summary, dict) else None
    return summary


def is_better_low(metric: str) -> bool:
    """Whether less of it is better, as of latencies."""
    return METRICS[metric][0] == "latency"
