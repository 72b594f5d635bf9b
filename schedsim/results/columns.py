"""`RequestColumns` and `StepColumns`: a run record as arrays, the input of every metric."""

import re
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from schedsim.request import Status
from schedsim.results.quantiles import Floats, Ints
from schedsim.results.record import RunRecord
from schedsim.results.request_log import CODES, STATUSES
from schedsim.results.step_log import MEMORY_COLUMNS, StepLog

Mask = npt.NDArray[np.bool_]

_FINISHED, _UNFINISHED = CODES[Status.FINISHED], CODES[Status.UNFINISHED]


@dataclass(frozen=True, slots=True)
class RequestColumns:
    """One row a request of the trace, in trace order; times in seconds, NaN for never.

    `output_tokens` is what a finished request emitted (an output limit may have cut it) and, for
    the others, the length that the trace declares; `emitted_tokens` is what came out in this run.
    `status` holds codes into `STATUSES`; `reasons` has the rows that carry one.
    """

    arrival: Floats
    released: Floats
    admitted: Floats
    first_token: Floats
    finished: Floats
    status: Ints
    reasons: dict[int, str]
    prompt_tokens: Ints
    output_tokens: Ints
    emitted_tokens: Ints
    cached_tokens: Ints
    recomputed_tokens: Ints
    preemptions: Ints
    requeue_s: Floats
    tenant: Ints
    ttft_slo: Floats
    tpot_slo: Floats

    @classmethod
    def from_record(cls, record: RunRecord) -> "RequestColumns":
        """Collect the columns from the log and, for those never released, the trace."""
        trace, size, log = record.trace, len(record.trace), record.requests
        rows = log.column("id")

        def floats(name: str) -> Floats:
            return _scatter(size, rows, log.column(name), np.nan)

        def ints(name: str) -> Ints:
            return _scatter(size, rows, log.column(name), 0)

        arrival = trace.arrival.astype(np.float64)
        if trace.parent is not None:
            arrival[trace.parent >= 0] = np.nan  # set by the closed loop, if it got that far
        arrival[rows] = log.column("arrival")
        status = _scatter(size, rows, log.column("status").astype(np.int64), _UNFINISHED)
        emitted = ints("num_generated_tokens")
        slo = record.slo
        return cls(
            arrival=arrival,
            released=floats("released"),
            admitted=floats("admitted"),
            first_token=floats("first_token"),
            finished=floats("finished"),
            status=status,
            reasons=dict(sorted(log.reasons.items())),
            prompt_tokens=trace.prompt_tokens.astype(np.int64),
            output_tokens=np.where(status == _FINISHED, emitted, trace.output_tokens),
            emitted_tokens=emitted,
            cached_tokens=ints("cached_tokens"),
            recomputed_tokens=ints("recomputed_tokens"),
            preemptions=ints("preemptions"),
            requeue_s=floats("requeue_s"),
            tenant=np.full(size, -1, np.int64) if trace.tenant is None else trace.tenant,
            ttft_slo=_target(size, trace.ttft_slo, None if slo is None else slo.ttft),
            tpot_slo=_target(size, trace.tpot_slo, None if slo is None else slo.tpot),
        )

    def __len__(self) -> int:
        return len(self.arrival)

    @property
    def is_finished(self) -> Mask:
        """Which requests ran to their end."""
        finished: Mask = self.status == _FINISHED
        return finished

    @property
    def has_outcome(self) -> Mask:
        """Which requests are finished, rejected or failed: their fate is known."""
        settled: Mask = self.status != _UNFINISHED
        return settled

    @property
    def is_accepted(self) -> Mask:
        """Which requests were released and not rejected."""
        accepted: Mask = ~np.isnan(self.released) & (self.status != CODES[Status.REJECTED])
        return accepted

    def status_counts(self) -> dict[str, int]:
        """Requests by status; the values sum to the number of rows."""
        counts = np.bincount(self.status, minlength=len(STATUSES))
        return {str(status): int(counts[code]) for status, code in CODES.items()}

    def reason_counts(self, status: Status) -> dict[str, int]:
        """Requests of one status by reason, most frequent first; numbers in a reason become N."""
        code = CODES[status]
        counts = Counter(
            re.sub(r"\d+(\.\d+)?", "N", reason)
            for row, reason in self.reasons.items()
            if self.status[row] == code
        )
        return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


@dataclass(frozen=True, slots=True)
class StepColumns:
    """The step log as arrays; the fields are those of `StepLog`.

    `idle_before[i]` counts the idle looks before the decision of iteration i; those after the last
    one are cut. The device's columns are empty where there was none. `failed_though_enough` counts
    since the iteration before; the memory's columns are 0 where its manager has nothing to say.
    """

    decided_at: Floats
    start: Floats
    end: Floats
    last_arrival_seen: Ints
    prefill_requests: Ints
    prefill_tokens: Ints
    prefill_context: Ints
    prefill_attention: Floats
    prefill_longest: Ints
    decode_requests: Ints
    context_tokens: Ints
    longest_context: Ints
    padding_requests: Ints
    padding_context: Ints
    sampled: Ints
    swapped_blocks: Ints
    copied_blocks: Ints
    running: Ints
    waiting: Ints
    free_blocks: Ints
    stored_tokens: Ints
    preempted: Ints
    reserved_slots: Ints
    unusable_slots: Ints
    failed_though_enough: Ints
    idle_looks: Floats
    idle_before: Ints
    host_s: Floats
    gpu_s: Floats
    gap_s: Floats

    @classmethod
    def from_log(cls, log: StepLog) -> "StepColumns":
        """View the log."""
        names = [name for name in cls.__dataclass_fields__ if name != "idle_before"]
        columns = {name: log.column(name) for name in names}
        rows = np.arange(len(log))
        columns["idle_before"] = np.searchsorted(log.column("idle_rows"), rows, side="right")
        seen = columns["idle_before"][-1] if len(log) else 0
        columns["idle_looks"] = columns["idle_looks"][:seen]
        zeros = np.zeros(len(log), dtype=np.int64)
        for name in MEMORY_COLUMNS:
            if len(columns[name]) < len(log):
                columns[name] = zeros
        columns["failed_though_enough"] = np.diff(columns["failed_though_enough"], prepend=0)
        return cls(**columns)

    def __len__(self) -> int:
        return len(self.end)

    @property
    def seconds(self) -> Floats:
        """How long each iteration ran."""
        return self.end - self.start


def _scatter(size: int, rows: Ints, values: npt.NDArray[Any], missing: float) -> npt.NDArray[Any]:
    column = np.full(size, missing, dtype=values.dtype)
    column[rows] = values
    return column


def _target(size: int, own: Floats | None, general: float | None) -> Floats:
    """A latency target for each request: its own, else the general one, else NaN."""
    target = np.full(size, np.nan if general is None else general)
    if own is not None:
        np.copyto(target, own, where=~np.isnan(own))
    return target
