"""A recorded run with other times: the same decisions, iterations as long as a model says.

What a run's figures would be if the engine had decided all it did while its iterations took longer
or shorter. Only a free simulation lets decisions answer to the times.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from schedsim.results.columns import RequestColumns, StepColumns
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


def other_device_time(steps: StepColumns, arrival: Floats, host: Floats, device: Floats) -> Moments:
    """The moments if each iteration had `device` seconds, all else of the engine as it was.

    The time from the end of an iteration to the next decision and from there to the start is the
    recorded one; `host` is that of iterations which were decided while the one before ran. An
    engine that was idle looks when it did. Nobody is scheduled before arriving.
    """
    size = len(steps)
    hidden, idle = _hidden(steps), _idle(steps)
    ready_after = np.where(hidden, host, steps.start - steps.decided_at)
    moments = _Walk(size)
    for i in range(size):
        if i == 0 or idle[i]:
            decided = max(moments.last_end, float(steps.decided_at[i]))
        elif hidden[i]:
            decided = moments.last_start + float(steps.decided_at[i] - steps.start[i - 1])
        else:
            decided = moments.last_end + float(steps.decided_at[i] - steps.end[i - 1])
        decided = max(decided, _came(arrival, steps, i))
        start = decided + float(ready_after[i])
        if hidden[i]:
            could = max(float(steps.decided_at[i] + ready_after[i]), float(steps.end[i - 1]))
            start = max(start, moments.last_end) + max(float(steps.start[i]) - could, 0.0)
        moments.add(decided, start, start + float(device[i]))
    return moments.as_arrays()


def other_engine(steps: StepColumns, arrival: Floats, told: Durations) -> Moments:
    """The moments if host, device and gap had all been as the model says, as it is simulated."""
    size = len(steps)
    hidden, idle = _hidden(steps), _idle(steps)
    moments = _Walk(size)
    gap = 0.0
    for i in range(size):
        free = moments.last_end + gap
        if hidden[i]:
            decided = max(moments.last_start, _came(arrival, steps, i))
            start = max(free, decided + float(told.host[i]))
        else:
            # An idle engine was woken by whoever came, or by the policy at a time of its own.
            seen = steps.last_arrival_seen
            is_woken = i > 0 and idle[i] and seen[i] == seen[i - 1]
            at = float(steps.decided_at[i]) if is_woken else _came(arrival, steps, i)
            decided = max(free, at)
            start = decided + float(told.host[i])
        moments.add(decided, start, start + float(told.device[i]))
        gap = float(told.gap[i])
    return moments.as_arrays()


def retimed_summary(record: RunRecord, moments: Moments) -> dict[str, Any]:
    """The summary of the run with each of its moments moved; its requests come when they did."""
    requests = RequestColumns.from_record(record)
    steps = StepColumns.from_log(record.steps)
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


def _hidden(steps: StepColumns) -> Any:
    """Which iterations were decided while the one before ran."""
    hidden = np.zeros(len(steps), dtype=np.bool_)
    hidden[1:] = steps.decided_at[1:] < steps.end[:-1]
    return hidden


def _idle(steps: StepColumns) -> Any:
    """Before which decisions the engine looked after the last batch had ended and ran nothing."""
    idle = np.zeros(len(steps), dtype=np.bool_)
    looks = np.diff(steps.idle_before, prepend=0) > 0
    last_look = np.full(len(steps), -np.inf)
    last_look[looks] = steps.idle_looks[steps.idle_before[looks] - 1]
    idle[1:] = looks[1:] & (last_look[1:] >= steps.end[:-1])
    return idle


def _came(arrival: Floats, steps: StepColumns, i: int) -> float:
    """When the last of those came whom the decision of iteration i knew."""
    seen = int(steps.last_arrival_seen[i])
    return 0.0 if seen < 0 else float(arrival[seen])


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
