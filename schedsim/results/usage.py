"""What the engine's room was used for: memory and batch size, averaged over iterations."""

from typing import Any

from schedsim.results.columns import StepColumns
from schedsim.results.quantiles import Floats, Ints


def memory_usage(steps: StepColumns, total_blocks: int, block_size: int) -> dict[str, Any]:
    """Shares of the KV capacity, weighted by the duration of iterations; idle time is left out."""
    capacity = total_blocks * block_size
    held = (total_blocks - steps.free_blocks) * block_size
    waste = held - steps.stored_tokens - steps.reserved_slots

    def share(slots: Ints) -> float | None:
        return _weighted_mean(slots / max(capacity, 1), steps.seconds)

    return {
        "capacity_tokens": capacity,
        "used": share(steps.stored_tokens),
        "reserved": share(held),
        "reserved_for_later": share(steps.reserved_slots),
        "internal_waste": share(waste),
        "external_waste": share(steps.unusable_slots),
        "failed_though_enough": int(steps.failed_though_enough.sum()),
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
