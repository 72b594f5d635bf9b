"""Measuring a protocol: the next run that is missing, as long as there is time for it."""

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from schedsim.config import RunSettings
from schedsim.errors import ConfigError, ResultError
from schedsim.experiments.execution import DeviceModel, execute_policy, load_device_model
from schedsim.experiments.protocol.index import RUNS, CapacityEntry, CellEntry, Index, load_index
from schedsim.experiments.protocol.loads import at_once, at_rate, load_source
from schedsim.experiments.protocol.plan import WHOLE, PlannedCell, Protocol, Share
from schedsim.experiments.runs import Outcome, RunOptions, run_policy
from schedsim.experiments.setup import prepare_trace
from schedsim.experiments.validation.saturation import KINDS, SATURATED, Tables, speeds_of
from schedsim.traces import Trace

LONGER = 1.15
"""How much longer than simulated a run is taken to be when its end is foreseen."""

FEWEST, MORE = 16, 1.25
"""The first number of requests that is tried for a capacity, and by how much the next is more."""

MOST_TRIES = 4
"""Times that a capacity gets more requests because they did not keep the engine busy."""

POLL_S = 0.5
"""Seconds between two looks at what the other shares have measured."""


class Saturated(NamedTuple):
    """What an engine did: requests of the mean length per second, and the smallest share of the
    time that they were counted in, in which one waited."""

    requests_per_s: float
    in_line: float

    @property
    def is_saturated(self) -> bool:
        """Whether that is what it can do."""
        return self.in_line >= SATURATED


class Done(NamedTuple):
    """What a call measured: the runs, in words, and what is still missing."""

    measured: list[str]
    missing: int


@dataclass(slots=True)
class Campaign:
    """The runs of a protocol, or of a `share` of it, in a folder.

    The other shares are measured into the folders `beside` it, one each, at the same time: loads
    are shares of the capacity that all of them measured. `seconds_left` says how much time this
    call has; `tell` is given each run in words, and at last what there was no time for.
    """

    protocol: Protocol
    folder: Path
    traces: Path
    seconds_left: Callable[[], float]
    share: Share = WHOLE
    beside: Sequence[Path] = ()
    command: Sequence[str] = ()
    tell: Callable[[str], None] = lambda text: None
    _index: Index = field(init=False)
    _others: list[Index] = field(init=False)
    _loaded: dict[str, Trace] = field(init=False, default_factory=dict)
    _model: DeviceModel | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        assert len(self.beside) == self.share.shares - 1, "every other share has a folder"
        self._index = load_index(self.folder)
        self._look()

    def measure(self) -> Done:
        """Make the runs that are missing, capacities first, until one would not fit.

        Each is booked when it is whole, so a call that is broken off loses only the run in flight.

        Raises:
            ConfigError, TraceError, PolicyError, ExecutionError, OutputError: a run cannot be made.
            ResultError: an index is damaged, or of another device.
            KeyboardInterrupt: the user stopped it.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        measured: list[str] = []
        for told in self._runs():
            if told is None:
                break
            measured.append(told)
            self.tell(told)
        return Done(measured, self.missing())

    def missing(self) -> int:
        """How many runs of the share are not there yet."""
        protocol, index = self.protocol, self._index
        found = 0
        for place, key in enumerate(protocol.capacities()):
            entry = index.capacities.get(key)
            planned = self.share.of(protocol.capacity_repeats, place)
            found += planned - (0 if entry is None else len(entry.runs))
        for place, cell in enumerate(protocol.cells):
            booked = index.cells.get(cell.name)
            planned = self.share.of(protocol.repeats_of(cell), place)
            found += planned - (0 if booked is None else len(booked.runs))
        return found

    def _runs(self) -> Iterator[str | None]:
        """What each missing run brought; None when there is no time."""
        waits = False
        while True:
            for place, (key, owner) in enumerate(self.protocol.capacities().items()):
                yield from self._capacity_runs(key, owner, place)
            self._look()
            lacking = [key for key in self.protocol.capacities() if not self._is_known(key)]
            if not lacking:
                break
            if not waits:
                self.tell(f"waits for the capacity of {lacking[0]}, which another share measures")
            if self.seconds_left() <= 0:
                yield None
            waits = True
            time.sleep(POLL_S)
        for place, cell in enumerate(self.protocol.cells):
            yield from self._cell_runs(cell, place)

    def _look(self) -> None:
        """Read what the other shares have measured by now."""
        self._others = [load_index(folder) for folder in self.beside]

    def _capacity_runs(self, key: str, owner: PlannedCell, place: int) -> Iterator[str | None]:
        """What each missing run of a capacity brought; None when there is no time."""
        protocol = self.protocol
        planned = self.share.of(protocol.capacity_repeats, place)
        if not planned:
            return
        trace, settings = self._trace(owner), protocol.settings(owner)
        entry = self._index.capacities.get(key)
        if entry is None:
            seconds = protocol.capacity_seconds
            enough = saturating_requests(trace, settings, protocol.sizing, seconds)
            entry = self._index.capacities[key] = CapacityEntry(requests=enough)
        most = max(found.requests for found in self._shares_of(key))
        if most > entry.requests:  # another share found these too few
            entry.requests, entry.requests_per_s, entry.runs = most, [], []
        tries = 0
        while len(entry.runs) < planned:
            asked = at_once(trace, settings, entry.requests)
            path = self._free_path(key, len(entry.runs) + 1)
            outcome = self._execute(trace, asked, path)
            if outcome is None:
                yield None
                return
            did = saturated_rate(_tables(outcome))
            if not did.is_saturated:
                tries += 1
                if tries == MOST_TRIES:
                    raise ConfigError(
                        f"{key}: {entry.requests:,} requests do not keep the engine busy; name a "
                        "sizing that is nearer to this device"
                    )
                entry.requests = more_than(entry.requests)
                entry.requests_per_s, entry.runs = [], []
                self._index.write(self.folder)
                yield f"capacity of {key}: too few requests, once more with {entry.requests:,}"
                continue
            entry.requests_per_s.append(did.requests_per_s)
            entry.runs.append(str(path.relative_to(self.folder)))
            self._index.write(self.folder)
            yield f"capacity of {key}: {did.requests_per_s:.3f} requests/s"

    def _shares_of(self, key: str) -> list[CapacityEntry]:
        """What each share that has begun with this capacity has of it."""
        indices = (self._index, *self._others)
        return [index.capacities[key] for index in indices if key in index.capacities]

    def _is_known(self, key: str) -> bool:
        """Whether all runs of a capacity are there, with the same requests."""
        shares = self._shares_of(key)
        alike = len({entry.requests for entry in shares}) == 1
        return alike and sum(len(e.runs) for e in shares) == self.protocol.capacity_repeats

    def _cell_runs(self, cell: PlannedCell, place: int) -> Iterator[str | None]:
        """What each missing run of the cell brought; None when there is no time."""
        planned = self.share.of(self.protocol.repeats_of(cell), place)
        if not planned:
            return
        shares = self._shares_of(self.protocol.capacity_key(cell))
        # in an order of their own, so that all shares come to the same sum
        did = sorted(rate for entry in shares for rate in entry.requests_per_s)
        rate = float(f"{cell.load * sum(did) / len(did):.6g}")
        entry = self._index.cells.setdefault(cell.name, CellEntry(rate=rate))
        trace, settings = self._trace(cell), self.protocol.settings(cell)
        while len(entry.runs) < planned:
            asked = at_rate(trace, settings, entry.rate, self.protocol.seconds)
            path = self._free_path(cell.name, len(entry.runs) + 1)
            outcome = self._execute(trace, asked, path)
            if outcome is None:
                yield None
                return
            entry.runs.append(str(path.relative_to(self.folder)))
            self._index.write(self.folder)
            makespan = outcome.result.summary["makespan_s"]
            yield f"{cell.name}, {len(entry.runs)}: {entry.rate:.3f} requests/s, {makespan:.1f} s"

    def _execute(self, trace: Trace, settings: RunSettings, path: Path) -> Outcome | None:
        """One run with its trail; None where the time left is too short for it."""
        if self._model is None:
            self._model = load_device_model(settings, self.protocol.execution())
            self._check_device(self._model.device)
        prepared = prepare_trace(trace, settings)
        sized = settings.model_copy(update={"step_time": self.protocol.sizing})
        makespan = _ended(run_policy(prepared, sized)).result.summary["makespan_s"] or 0.0
        needed = LONGER * makespan + self.protocol.overhead_s
        if needed > self.seconds_left():
            self.tell(f"no time left for {path.parent.name}, which is taken to need {needed:.0f} s")
            return None
        options = RunOptions(path, trail=True, command=self.command)
        return _ended(execute_policy(prepared, settings, options, model=self._model))

    def _check_device(self, device: str) -> None:
        known = self._index.device
        if known not in (None, device):
            raise ResultError(
                f"{self.folder} holds runs of {known}, and this is {device}: a protocol is of one "
                "kind of device; choose another folder"
            )
        self._index.device = device

    def _trace(self, cell: PlannedCell) -> Trace:
        if cell.trace not in self._loaded:
            self._loaded[cell.trace] = load_source(self.protocol.traces[cell.trace], self.traces)
        return self._loaded[cell.trace]

    def _free_path(self, name: str, number: int) -> Path:
        """A folder for a run; what a call that was broken off left behind is passed over."""
        plain = "".join(c if c.isalnum() or c in "-_=,." else "-" for c in name)
        path = self.folder / RUNS / plain / str(number)
        while path.exists():
            number += 1
            path = path.with_name(str(number))
        return path


def saturating_requests(trace: Trace, settings: RunSettings, step_time: str, seconds: float) -> int:
    """The fewest of some numbers of requests, all there from the beginning, that saturate the
    engine of a simulation and keep it busy for so many seconds.

    Raises:
        ConfigError: the trace is too short, or the step time wrong.
    """
    requests = FEWEST
    while True:
        sized = at_once(trace, settings, requests).model_copy(update={"step_time": step_time})
        outcome = _ended(run_policy(prepare_trace(trace, sized), sized))
        lasted = (outcome.result.summary["makespan_s"] or 0.0) >= seconds
        if lasted and saturated_rate(_tables(outcome)).is_saturated:
            return requests
        requests = more_than(requests)


def more_than(requests: int) -> int:
    """The next number of requests to try."""
    return math.ceil(MORE * requests)


def saturated_rate(run: Tables) -> Saturated:
    """The speed of a run, in requests of the mean length."""
    speeds = speeds_of(run)
    if len(speeds) < len(KINDS):
        return Saturated(0.0, 0.0)
    summary = run.summary
    tokens = summary["prompt_tokens"] + summary["output_tokens"]
    rate = speeds[KINDS[0]].tokens_per_s * summary["requests"]["finished"] / tokens
    return Saturated(rate, min(speed.in_line for speed in speeds.values()))


def _tables(outcome: Outcome) -> Tables:
    result = outcome.result
    return Tables(result.summary, result.steps_table)


def _ended(outcome: Outcome) -> Outcome:
    if outcome.error is not None:
        raise outcome.error
    if outcome.is_interrupted:
        raise KeyboardInterrupt
    return outcome
