"""`StepLog`: one row an iteration, as columns; the only thing a backend appends to all the time."""

import struct
from array import array
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from schedsim.memory.base import MemoryUse
from schedsim.results.quantiles import Floats
from schedsim.scheduler.batch import Batch

TIME_COLUMNS = ("decided_at", "start", "end")
INT_COLUMNS = (
    "last_arrival_seen",
    "prefill_requests",
    "prefill_tokens",
    "prefill_context",
    "prefill_longest",
    "decode_requests",
    "context_tokens",
    "longest_context",
    "padding_requests",
    "padding_context",
    "sampled",
    "swapped_blocks",
    "copied_blocks",
    "running",
    "waiting",
    "free_blocks",
    "stored_tokens",
    "preempted",
)
DEVICE_COLUMNS = ("host_s", "gpu_s", "gap_s")
ONCE_A_RUN = ("prefill_attention", *INT_COLUMNS)
"""Columns in which a run of iterations has one value, that of its first."""

_pack = struct.Struct(f"=d{len(INT_COLUMNS)}q").pack
_PACKED = np.dtype([("prefill_attention", "f8"), *((name, "i8") for name in INT_COLUMNS)])

PACKED_AT_MOST = 4096 * _PACKED.itemsize
"""Bytes of rows that wait to be spread over the columns: packing a row is twice as fast."""

GROWING = ("context_tokens", "longest_context", "stored_tokens")
"""Those of them that grow in every further iteration: by a token for each of `decode_requests`, but
`longest_context` by one."""

MEMORY_COLUMNS = ("reserved_slots", "unusable_slots", "failed_though_enough")


class StepLog:
    """The iterations of a run in the order in which they ran.

    A row says, for one iteration: when its batch was decided, began and ended (s);
    `last_arrival_seen`, the id of the latest request released before the decision, refused ones
    included (-1: none); the sizes of the batch as in `BatchShape`, but `context_tokens`, the tokens
    that its decoding requests have in the cache at the start, for `decode_context`; `running`, the
    seats taken while it runs, padding members of a static batch included; `waiting`, the requests
    left in line; `free_blocks`, the blocks nobody holds at its end, before its finished requests
    give theirs back; `stored_tokens`, the KV slots that hold tokens while it runs; `preempted`, how
    many requests its decision preempted.

    `idle_looks` are the moments at which the engine looked and ran nothing, in order, and
    `idle_rows[j]` how many iterations were decided before the j-th of them. An engine on a device
    also notes `host_s`, `gpu_s` and `gap_s` of each iteration (`note_device`); else these columns
    are empty. So are, but with a memory manager that reserves ahead (`note_memory`),
    `reserved_slots`, `unusable_slots` and `failed_though_enough`: what `MemoryUse` says at the end
    of the iteration.

    Iterations that `append_ahead` adds together share one place in most arrays, and the latest rows
    are in none, until a column is asked for.
    """

    __slots__ = (
        *TIME_COLUMNS,
        *ONCE_A_RUN,
        *DEVICE_COLUMNS,
        *MEMORY_COLUMNS,
        "_packed",
        "_run_at",
        "_run_length",
        "append",
        "idle_looks",
        "idle_rows",
    )

    decided_at: "array[float]"
    start: "array[float]"
    end: "array[float]"
    prefill_attention: "array[float]"
    host_s: "array[float]"
    gpu_s: "array[float]"
    gap_s: "array[float]"
    idle_looks: "array[float]"
    last_arrival_seen: "array[int]"
    prefill_requests: "array[int]"
    prefill_tokens: "array[int]"
    prefill_context: "array[int]"
    prefill_longest: "array[int]"
    decode_requests: "array[int]"
    context_tokens: "array[int]"
    longest_context: "array[int]"
    padding_requests: "array[int]"
    padding_context: "array[int]"
    sampled: "array[int]"
    swapped_blocks: "array[int]"
    copied_blocks: "array[int]"
    running: "array[int]"
    waiting: "array[int]"
    free_blocks: "array[int]"
    stored_tokens: "array[int]"
    preempted: "array[int]"
    idle_rows: "array[int]"
    _run_at: "array[int]"
    _run_length: "array[int]"
    reserved_slots: "array[int]"
    unusable_slots: "array[int]"
    failed_though_enough: "array[int]"

    append: Callable[[Batch, float, float, int, int, int, int, int], None]
    """`append(batch, start, end, last_arrival_seen, running, waiting, free_blocks,
    stored_tokens)`; positional only."""

    def __init__(self) -> None:
        for name in (*TIME_COLUMNS, "prefill_attention", *DEVICE_COLUMNS):
            setattr(self, name, array("d"))
        for name in (*INT_COLUMNS, *MEMORY_COLUMNS):
            setattr(self, name, array("q"))
        self._packed = bytearray()
        self.idle_looks = array("d")
        self.idle_rows = array("q")
        self._run_at = array("q")
        self._run_length = array("q")
        self.append = self._bound_append()

    def __len__(self) -> int:
        return len(self.end)

    def append_ahead(
        self,
        batch: Batch,
        decided_at: Floats,
        start: Floats,
        end: Floats,
        last_arrival_seen: int,
        running: int,
        waiting: int,
        free_blocks: int,
        stored_tokens: int,
    ) -> None:
        """As many rows as there are times, of iterations that only decode and follow each other.

        The first one is `batch`; in each the requests have one more token. `stored_tokens` is of
        the first.
        """
        self._run_at.append(len(self.sampled) + len(self._packed) // _PACKED.itemsize)
        self._run_length.append(len(end))
        self.append(
            batch, 0.0, 0.0, last_arrival_seen, running, waiting, free_blocks, stored_tokens
        )
        for column, times in (
            (self.decided_at, decided_at),
            (self.start, start),
            (self.end, end),
        ):
            column.pop()
            column.frombytes(times.tobytes())

    def column(self, name: str) -> npt.NDArray[Any]:
        """One column as float64 or int64; no copy, so nothing can be appended while it is held."""
        self._unpack()
        if self._run_at:
            self._expand()
        values: array[Any] = getattr(self, name)
        return np.frombuffer(values, dtype=values.typecode) if values else np.array(values)

    def note_idle_look(self, now: float, decided: int) -> None:
        """The engine, which had decided `decided` iterations, looked at `now` and ran nothing."""
        self.idle_looks.append(now)
        self.idle_rows.append(decided)

    def note_device(self, host_s: float, gpu_s: float, gap_s: float) -> None:
        """What an engine on a device measured of the iteration appended last."""
        self.host_s.append(host_s)
        self.gpu_s.append(gpu_s)
        self.gap_s.append(gap_s)

    def note_memory(self, use: MemoryUse) -> None:
        """How the memory was used at the end of the iteration appended last."""
        self.reserved_slots.append(use.reserved)
        self.unusable_slots.append(use.external_waste)
        self.failed_though_enough.append(use.failed_though_enough)

    def check(self) -> None:
        """Assert that every iteration is in all columns that this run fills; O(runs of them)."""
        assert len(self._run_at) == len(self._run_length), "a run of iterations has no length"
        self._unpack()
        places = len(self.end) - sum(self._run_length) + len(self._run_length)
        for names, rows in (
            (TIME_COLUMNS, {len(self.end)}),
            (ONCE_A_RUN, {places}),
            (DEVICE_COLUMNS, {0, len(self.end)}),
            (MEMORY_COLUMNS, {0, len(self.end)}),
        ):
            for name in names:
                found = len(getattr(self, name))
                assert found in rows, f"{name} has {found} rows of {max(rows)}"

    def _expand(self) -> None:
        """Give every iteration its own place in all columns; one column at a time, for memory."""
        lengths = np.ones(len(self.sampled), dtype=np.int64)
        lengths[np.frombuffer(self._run_at, dtype=np.int64)] = self._run_length
        firsts = np.cumsum(lengths) - lengths
        for name in ONCE_A_RUN:
            values: array[Any] = getattr(self, name)
            rows = np.repeat(np.frombuffer(values, dtype=values.typecode), lengths)
            if name in GROWING:
                grown = np.arange(len(rows))
                grown -= np.repeat(firsts, lengths)
                if name != "longest_context":
                    grown *= np.frombuffer(self.decode_requests, dtype=np.int64)
                rows += grown
            expanded = array(values.typecode)
            expanded.frombytes(rows.view(np.uint8).data)
            setattr(self, name, expanded)
        self._run_at, self._run_length = array("q"), array("q")

    def _unpack(self) -> None:
        """Spread the packed rows over their columns."""
        rows = np.frombuffer(bytes(self._packed), dtype=_PACKED)  # what is viewed cannot be cleared
        for name in ONCE_A_RUN:
            getattr(self, name).frombytes(rows[name].tobytes())
        self._packed.clear()

    def _bound_append(self) -> Callable[[Batch, float, float, int, int, int, int, int], None]:
        """`append` with all that it needs bound: it runs once an iteration."""
        add_decided_at, add_start, add_end = (
            self.decided_at.append,
            self.start.append,
            self.end.append,
        )
        packed, unpack = self._packed, self._unpack
        add_packed = packed.extend

        def append(
            batch: Batch,
            start: float,
            end: float,
            last_arrival_seen: int,
            running: int,
            waiting: int,
            free_blocks: int,
            stored_tokens: int,
            /,
        ) -> None:
            decodes = batch.decode_requests
            add_decided_at(batch.decided_at)
            add_start(start)
            add_end(end)
            add_packed(
                _pack(
                    batch.prefill_attention,
                    last_arrival_seen,
                    batch.prefill_requests,
                    batch.prefill_tokens,
                    batch.prefill_context,
                    batch.prefill_longest,
                    decodes,
                    batch.decode_context - decodes,
                    batch.longest_context,
                    batch.padding_requests,
                    batch.padding_context,
                    batch.sampled,
                    batch.swapped_blocks,
                    batch.copied_blocks,
                    running,
                    waiting,
                    free_blocks,
                    stored_tokens,
                    len(batch.preempted),
                )
            )
            if len(packed) >= PACKED_AT_MOST:
                unpack()

        return append
