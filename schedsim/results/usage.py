"""What the engine's room was used for: memory and batch size, averaged over iterations."""

from typing import Any

from schedsim.results.columns import StepColumns
from schedsim.results.quantiles import Floats


def memory_usage(steps: StepColumns, total_blocks: int, block_size: int) -> dict[str, Any]:
    """Shares of the KV capacity, weighted by the duration of iterations; idle time is left out."""
    capacity = total_blocks * block_size
    reserved = (total_blocks - steps.free_blocks) * block_size
    used = _weighted_mean(steps.stored_tokens / max(capacity, 1), steps.seconds)
    held = _weighted_mean(reserved / max(capacity, 1), steps.seconds)
    return {
        "capacity_tokens": capacity,
        "used": used,
        "reserved": held,
        "internal_waste": None if used is None or held is None else held - used,
        "external_waste": None if used is None else 0.0,  # any free block serves any request
    }


def batch_size(steps: StepColumns) -> dict[str, Any]:
    """Mean seats taken and mean tokens of an iteration, by iteration and by time."""
    tokens = steps.prefill_tokens + steps.decode_requests
    return {
        "requests_per_iteration": float(steps.running.mean()) if len(steps) else None,
        "requests_time_weighted": _weighted_mean(steps.running, steps.seconds),
        "tokens_per_iteration": float(tokens.mean()) if len(steps) else None,
        "tokens_time_weighted": _weighted_mean(tokens, steps.seconds),
    }


def _weighted_mean(values: Any, seconds: Floats) -> float | None:
    total = float(seconds.sum())
    return float((values * seconds).sum() / total) if total > 0 else None
