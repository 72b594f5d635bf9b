"""A recorded run with other times: the same decisions, iterations as long as a model says.

What a run's figures would be if the engine had decided all it did while its iterations took longer
or shorter. Only a free simulation lets decisions answer to the times.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from schedsim.results.columns import Mask, RequestColumns, StepColumns
from schedsim.results.latency import Latencies
from schedsim.results.quantiles import Floats, Ints
from schedsim.results.record import RunRecord
from schedsim.results.summary import summarize
from schedsim.results.token_times import TokenTimes


@dataclass(frozen=True, slots=True, eq=False)
class Durations:
    """What a model says of every iteration, in the order of the run (s): `StepParts` as arrays."""

    host: Floats
    device: Floats
    gap: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Moments:
    """When each iteration was decided, began and ended (s)."""

    decided_at: Floats
    start: Floats
    end: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Decided:
    """The decisions of a run, which stay while its times change.

    `hidden` iterations were decided while the one before ran; before `idle` ones the engine looked,
    after the last batch had ended, and ran nothing. `came` is when the last of those came who were
    first admitted in an iteration, 0 for nobody.
    """

    requests: RequestColumns
    steps: StepColumns
    hidden: Mask
    idle: Mask
    came: Floats

    @classmethod
    def of(cls, record: RunRecord) -> "Decided":
        """Those of a run that came to its end, in open loop."""
        requests = RequestColumns.from_record(record)
        steps = StepColumns.from_log(record.steps)
        size = len(steps)
        hidden, idle = np.zeros(size, dtype=np.bool_), np.zeros(size, dtype=np.bool_)
        hidden[1:] = steps.decided_at[1:] < steps.end[:-1]
        looked = np.diff(steps.idle_before, prepend=0) > 0
        last_look = np.full(size, -np.inf)
        last_look[looked] = steps.idle_looks[steps.idle_before[looked] - 1]
        idle[1:] = looked[1:] & (last_look[1:] >= steps.end[:-1])
        came = np.zeros(size)
        admitted = ~np.isnan(requests.admitted)
        place = np.searchsorted(steps.decided_at, requests.admitted[admitted])
        np.maximum.at(came, place, requests.arrival[admitted])
        return cls(requests, steps, hidden, idle, came)

    def woken_at(self, i: int) -> float:
        """What ended the idleness before iteration i: who came last, or the policy's own time."""
        seen = self.steps.last_arrival_seen
        if i > 0 and seen[i] == seen[i - 1]:
            return float(self.steps.decided_at[i])
        return float(self.requests.arrival[seen[i]])


def other_device_time(run: Decided, host: Floats, device: Floats) -> Moments:
    """The moments if each iteration had `device` seconds, all else of the engine as it was.

    The time from the end of an iteration to the next decision and from there to the start is the
    recorded one; `host` is that of hidden iterations. An engine that was idle looks when it did.
    Nobody is admitted before coming.
    """
    steps, hidden = run.steps, run.hidden
    ready_after = np.where(hidden, host, steps.start - steps.decided_at)
    moments = _Walk(len(steps))
    for i in range(len(steps)):
        if i == 0 or run.idle[i]:
            decided = max(moments.last_end, float(steps.decided_at[i]))
        elif hidden[i]:
            decided = moments.last_start + float(steps.decided_at[i] - steps.start[i - 1])
        else:
            decided = moments.last_end + float(steps.decided_at[i] - steps.end[i - 1])
        decided = max(decided, float(run.came[i]))
        start = decided + float(ready_after[i])
        if hidden[i]:
            could = max(float(steps.decided_at[i] + ready_after[i]), float(steps.end[i - 1]))
            start = max(start, moments.last_end) + max(float(steps.start[i]) - could, 0.0)
        moments.add(decided, start, start + float(device[i]))
    return moments.as_arrays()


def other_engine(run: Decided, told: Durations) -> Moments:
    """The moments if host, device and gap had all been as the model says, as it is simulated."""
    size = len(run.steps)
    moments = _Walk(size)
    gap = 0.0
    for i in range(size):
        free = moments.last_end + gap
        if run.hidden[i]:
            decided = max(moments.last_start, float(run.came[i]))
            start = max(free, decided + float(told.host[i]))
        else:
            woken = run.woken_at(i) if i == 0 or run.idle[i] else 0.0
            decided = max(free, float(run.came[i]), woken)
            start = decided + float(told.host[i])
        moments.add(decided, start, start + float(told.device[i]))
        gap = float(told.gap[i])
    return moments.as_arrays()


def retimed_summary(record: RunRecord, run: Decided, moments: Moments) -> dict[str, Any]:
    """The summary of the run with each of its moments moved; its requests come when they did."""
    requests, steps = run.requests, run.steps
    tokens = TokenTimes.from_log(record.tokens, requests.first_token, steps.end)

    def moved(times: Floats) -> Floats:
        """Ends of iterations; NaN stays."""
        return _looked_up(times, steps.end, moments.end)

    before = _nearest(steps.end, tokens.gap_end - tokens.gap_s)
    gap_end = moved(tokens.gap_end)
    decode_ends = tokens.decode_ends.copy()
    decode_ends[1:] = moved(decode_ends[1:])
    requests = replace(
        requests,
        admitted=_looked_up(requests.admitted, steps.decided_at, moments.decided_at),
        first_token=moved(requests.first_token),
        finished=moved(requests.finished),
    )
    steps = replace(steps, decided_at=moments.decided_at, start=moments.start, end=moments.end)
    tokens = replace(
        tokens, decode_ends=decode_ends, gap_end=gap_end, gap_s=gap_end - moments.end[before]
    )
    latencies = Latencies.of(requests, tokens)
    return summarize(record, requests, steps, tokens, latencies)


class _Walk:
    """Moments of iterations, one after the other."""

    def __init__(self, size: int) -> None:
        self._decided, self._start, self._end = (np.empty(size) for _ in range(3))
        self._place = 0
        self.last_start = self.last_end = 0.0

    def add(self, decided: float, start: float, end: float) -> None:
        place = self._place
        self._decided[place], self._start[place], self._end[place] = decided, start, end
        self.last_start, self.last_end = start, end
        self._place += 1

    def as_arrays(self) -> Moments:
        return Moments(self._decided, self._start, self._end)


def _nearest(ascending: Floats, wanted: Floats) -> Ints:
    above = np.searchsorted(ascending, wanted).clip(1, max(len(ascending) - 1, 1))
    low, high = ascending[above - 1], ascending[np.minimum(above, len(ascending) - 1)]
    return np.where(wanted - low <= high - wanted, above - 1, above)


def _looked_up(times: Floats, of: Floats, to: Floats) -> Floats:
    """Each time, which is one of `of`, as it stands in `to`; NaN stays."""
    place = np.searchsorted(of, times).clip(0, len(of) - 1)
    known = ~np.isnan(times)
    assert (of[place[known]] == times[known]).all(), "a time is that of no iteration"
    return np.where(known, to[place], np.nan)
