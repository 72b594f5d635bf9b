"""The tables `requests` and `steps` as Arrow tables; their columns are documented in metrics.md."""

from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from schedsim.results.columns import RequestColumns, StepColumns
from schedsim.results.latency import Latencies
from schedsim.results.request_log import STATUSES
from schedsim.results.step_log import DEVICE_COLUMNS


def requests_table(
    columns: RequestColumns,
    latencies: Latencies,
    tenant_names: tuple[str, ...],
    replica: int,
) -> pa.Table:
    """One row a request, in trace order."""
    size = len(columns)
    never = np.isnan(columns.admitted)
    return pa.table(
        {
            "request": np.arange(size),
            "replica": pa.array(np.full(size, replica), pa.int32()),
            "arrival": _nullable(columns.arrival),
            "released": _nullable(columns.released),
            "admitted": _nullable(columns.admitted),
            "first_token": _nullable(columns.first_token),
            "finished": _nullable(columns.finished),
            "status": _named(columns.status, [str(status) for status in STATUSES]),
            "reason": _reasons(size, columns.reasons),
            "prompt_tokens": columns.prompt_tokens,
            "output_tokens": columns.output_tokens,
            "cached_tokens": columns.cached_tokens,
            "recomputed_tokens": columns.recomputed_tokens,
            "preemptions": columns.preemptions,
            "queue_s": _nullable(latencies.queue),
            "requeue_s": _nullable(np.where(never, np.nan, columns.requeue_s)),
            "ttft_s": _nullable(latencies.ttft),
            "tpot_s": _nullable(latencies.tpot),
            "max_itl_s": _nullable(latencies.max_itl),
            "e2e_s": _nullable(latencies.e2e),
            "normalized_latency_s": _nullable(latencies.normalized),
            "tenant": _tenants(columns.tenant, tenant_names),
        }
    )


def steps_table(columns: StepColumns, replica: int) -> pa.Table:
    """One row an iteration; the device's columns only where a device ran it."""
    size = len(columns)
    idle_offsets = np.concatenate([[0], columns.idle_before])
    table = {
        "step": np.arange(size),
        "replica": pa.array(np.full(size, replica), pa.int32()),
        "iterations": pa.array(np.ones(size, dtype=np.int64)),
        "decided_at": columns.decided_at,
        "start": columns.start,
        "end": _lists(columns.end, np.arange(size + 1)),
        "last_arrival_seen": columns.last_arrival_seen,
        "prefill_requests": columns.prefill_requests,
        "prefill_tokens": columns.prefill_tokens,
        "prefill_context": columns.prefill_context,
        "prefill_attention": columns.prefill_attention,
        "prefill_longest": columns.prefill_longest,
        "decode_requests": columns.decode_requests,
        "context_tokens": columns.context_tokens,
        "longest_context": columns.longest_context,
        "padding_requests": columns.padding_requests,
        "padding_context": columns.padding_context,
        "sampled": columns.sampled,
        "swapped_blocks": columns.swapped_blocks,
        "copied_blocks": columns.copied_blocks,
        "running": columns.running,
        "waiting": columns.waiting,
        "free_blocks": columns.free_blocks,
        "preempted": columns.preempted,
        "stored_tokens": columns.stored_tokens,
        "reserved_slots": columns.reserved_slots,
        "unusable_slots": columns.unusable_slots,
        "failed_though_enough": columns.failed_though_enough,
        "idle_looks": _lists(columns.idle_looks, idle_offsets),
    }
    if size and len(columns.gpu_s) == size:
        table |= {name: _nullable(getattr(columns, name)) for name in DEVICE_COLUMNS}
    return pa.table(table)


def _lists(values: npt.NDArray[np.float64], offsets: npt.NDArray[Any]) -> Any:
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(values))


def _nullable(values: npt.NDArray[np.float64]) -> Any:
    return pa.array(values, mask=np.isnan(values))


def _named(codes: npt.NDArray[np.int64], names: list[str]) -> Any:
    """Strings from codes; -1 is null."""
    indices = pa.array(codes, pa.int32(), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(names, pa.string())).cast(pa.string())


def _reasons(size: int, reasons: dict[int, str]) -> Any:
    names: dict[str, int] = {}
    codes = np.full(size, -1, dtype=np.int64)
    for row, reason in reasons.items():
        codes[row] = names.setdefault(reason, len(names))
    return _named(codes, list(names))


def _tenants(tenant: npt.NDArray[np.int64], names: tuple[str, ...]) -> Any:
    if not names:
        names = tuple(str(number) for number in range(int(tenant.max(initial=-1)) + 1))
    return _named(tenant, list(names))
