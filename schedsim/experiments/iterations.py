"""`Iterations`: what runs say of theirs: the features of each batch and where its time went."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt

from schedsim.costs.features import FEATURES, UNPADDED, Padding, features_of_steps
from schedsim.costs.features import KINDS as KINDS
from schedsim.costs.throttle import TokenRate
from schedsim.errors import ResultError
from schedsim.results.stored_run import StoredRun, float_column, step_ends
from schedsim.scheduler.batch import BatchShape

Floats = npt.NDArray[np.float64]

_SIZES = (
    "prefill_requests",
    "prefill_tokens",
    "prefill_context",
    "prefill_attention",
    "prefill_longest",
    "decode_requests",
    "context_tokens",
    "longest_context",
    "padding_requests",
    "padding_context",
    "sampled",
    "swapped_blocks",
    "copied_blocks",
)


@dataclass(frozen=True, slots=True, eq=False)
class Iterations:
    """Iterations that took time, as arrays of one length.

    `features` has a column for each of `FEATURES`, `sizes` one for each field of `BatchShape`.
    `host` is decision to start, `device` start to end, `gap` end to the next decision (s); a gap is
    NaN where the engine idled before the next decision, and at the end of a run.

    `hidden` iterations were decided while the one before ran: their `host` passed beside it (NaN
    where the run did not measure it) and the gap before them reaches to their start; that gap is
    NaN where the device waited for the host. `timed` are by the device's own clock, device and the
    gap before: those launched while the one before ran. The host sees the end of an iteration late
    if it launches the next one for long. What of their swaps and moves was not done by the time
    they could begin is part of `device`, and the gap before them is NaN. `idle` is how long the
    device had nothing to do before each (infinite at the begin of a run). `row` is the row in the
    steps of its run.
    """

    features: Floats
    sizes: Floats
    host: Floats
    device: Floats
    gap: Floats
    hidden: npt.NDArray[np.bool_]
    idle: Floats
    timed: npt.NDArray[np.bool_]
    row: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.device)

    @property
    def period(self) -> Floats:
        """Seconds that each adds to the run: host, unless hidden, device and gap where known."""
        return self.added(self.host, self.device, self.gap)

    def added(self, host: Floats, device: Floats, gap: Floats) -> Floats:
        """Their sum as these iterations count it: host where not hidden, gap where one is known."""
        return np.where(self.hidden, 0.0, host) + device + np.where(np.isnan(self.gap), 0.0, gap)

    @property
    def terms(self) -> dict[str, Floats]:
        """The columns of `features` by name."""
        return dict(zip(FEATURES, self.features.T, strict=True))

    def take(self, rows: npt.NDArray[np.bool_]) -> "Iterations":
        """Those where `rows` is true."""
        return Iterations(**{field.name: getattr(self, field.name)[rows] for field in fields(self)})

    def token_rates(self, window_s: float, context: float) -> tuple[Floats, Floats]:
        """Tokens/s of late when each began and when it had ended, as a `Throttle` of this window
        and weight of contexts has them.

        Right only where no iteration was taken out.
        """
        before, after = np.zeros(len(self)), np.zeros(len(self))
        now, rate = 0.0, TokenRate(window_s)
        terms = self.terms
        tokens = terms["decode_requests"] + terms["prefill_tokens"]
        counted = tokens + context * terms["decode_context"]
        columns = (counted.tolist(), self.idle.tolist(), self.device.tolist())
        for place, (ran, idle, seconds) in enumerate(zip(*columns, strict=True)):
            if math.isinf(idle):
                now, rate = 0.0, TokenRate(window_s)
            else:
                now += idle
            before[place] = rate.at(now)
            after[place] = rate.ran(ran, now, seconds)
            now += seconds
        return before, after

    @property
    def kind(self) -> npt.NDArray[np.int64]:
        """Index in `KINDS` of each: prefill chunks alone, decodes alone, both, or none of them."""
        prefills = self.features[:, FEATURES.index("prefill_requests")] > 0
        decodes = self.features[:, FEATURES.index("decode_requests")] > 0
        return np.select([prefills & decodes, decodes, prefills], [2, 1, 0], 3)

    def shapes(self) -> list[BatchShape]:
        """The batch of each, as a step-time model sees it."""
        names = [field.name for field in fields(BatchShape)]
        return [
            BatchShape(**dict(zip(names, values, strict=True))) for values in self.sizes.tolist()
        ]


def iterations_of(run: StoredRun) -> Iterations:
    """The iterations of a run; those that only preempted take no time and are left out.

    Features count the padding of the run's own engine.

    Raises:
        ResultError: the run's steps lack a column, or none of them ran anything.
    """
    missing = {*_SIZES, "decided_at", "start", "end", "idle_looks"} - set(run.steps.column_names)
    if missing:
        raise ResultError(
            f"{run.path / 'steps.parquet'} lacks {', '.join(sorted(missing))}; run it again with "
            "this version of schedsim"
        )

    size = {name: float_column(run.steps, name) for name in _SIZES}
    decided_at, start = (float_column(run.steps, name) for name in ("decided_at", "start"))
    end = step_ends(run.steps)
    idled = np.diff(run.steps.column("idle_looks").combine_chunks().offsets.to_numpy()) > 0
    hidden = np.zeros(len(end), dtype=np.bool_)
    hidden[1:] = decided_at[1:] < end[:-1]
    measured = float_column(run.steps, "host_s") if "host_s" in run.steps.column_names else np.nan
    host = np.where(hidden, measured, start - decided_at)
    device = end - start
    idle = np.append(np.inf, np.maximum(start[1:] - end[:-1], 0.0))
    gap = np.full(len(end), np.nan)
    gap[:-1] = np.where(hidden, start, decided_at)[1:] - end[:-1]
    timed = np.zeros(len(end), dtype=np.bool_)
    ended, moved = end, timed
    if "gpu_s" in run.steps.column_names and _has_device_clock(run):
        gpu, before = float_column(run.steps, "gpu_s"), float_column(run.steps, "gap_s")
        timed = hidden & (idle == 0.0) & ~np.isnan(gpu)
        ended = _ends_by_device(end, timed, gpu + before)
        device = ended - start
    late = np.append(0.0, np.maximum(np.nan_to_num((decided_at + host)[1:] - ended[:-1]), 0.0))
    if timed.any():
        moved = timed & (size["swapped_blocks"] + size["copied_blocks"] > 0)
        moving = np.where(moved, np.maximum(before - late, 0.0), 0.0)
        device = np.where(timed, gpu + moving, device)
        idle = np.where(timed, before - moving, idle)
        gap[:-1] = np.where(timed, before, np.append(np.nan, gap[:-1]))[1:]
    # A device that waited for the host, or for blocks, says nothing of the time that it needs.
    gap[:-1][(idled | (hidden & (late > 0.0)) | moved)[1:]] = np.nan
    shape = {**size, "decode_context": size["context_tokens"] + size["decode_requests"]}
    work = ("prefill_requests", "decode_requests", "swapped_blocks", "copied_blocks")
    ran = np.flatnonzero(np.any([size[name] > 0 for name in work], axis=0))
    if not len(ran):
        raise ResultError(f"{run.path} holds no iteration that ran a request or copied a block")
    features = features_of_steps(size.__getitem__, padding_of(run))
    return Iterations(
        features=np.column_stack(list(features.values()))[ran],
        sizes=np.column_stack([shape[field.name] for field in fields(BatchShape)])[ran],
        host=host[ran],
        device=device[ran],
        gap=gap[ran],
        hidden=hidden[ran],
        idle=idle[ran],
        timed=timed[ran],
        row=ran,
    )


def _has_device_clock(run: StoredRun) -> bool:
    """A CPU has run what it is given when the host looks at the clock again, ahead or not."""
    return bool(run.execution.get("device", "cpu") != "cpu")


def _ends_by_device(end: Floats, timed: npt.NDArray[np.bool_], spans: Floats) -> Floats:
    """When the device had done each iteration, at the latest.

    The host sees an end after it has launched the next iteration. That one may be seen the moment
    it ends; then it began its span, the gap before it included, when the one before had ended.
    """
    ended = end.copy()
    for place in np.flatnonzero(timed)[::-1].tolist():
        ended[place - 1] = min(ended[place - 1], ended[place] - spans[place])
    return ended


def padding_of(run: StoredRun) -> Padding:
    """The sizes to which the engine of a run padded its batches; none where it does not say."""
    said = run.execution.get("padding")
    if said is None:
        return UNPADDED
    if "max_chunks" in said:  # an older run, whose sizes all had room for as many chunks
        sizes = {name: said[name] for name in ("decodes", "mixed")}
        return Padding(**sizes, chunks=[said["max_chunks"]] * len(sizes["mixed"]))
    return Padding(**said)


def joined(parts: Sequence[Iterations]) -> Iterations:
    """The iterations of several runs, one run after the other."""
    names = [field.name for field in fields(Iterations)]
    return Iterations(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    )
