"""A second Ctrl-C breaks a run off anywhere: its record is whole then, or is known not to be."""

import sys
from types import FrameType
from typing import Any

import pytest

from schedsim.backend import Backend, loop
from schedsim.config import make_settings
from schedsim.experiments.setup import prepare_run, prepare_trace
from schedsim.results import build_result, request_log, step_log
from schedsim.simulator.simulation import Simulation
from schedsim.traces.sample import sample_trace
from schedsim.traces.transforms import limit

BOOKS = {module.__file__ for module in (loop, request_log, step_log)}
EVERY = 37
"""A prime, so that interrupts fall on all lines of a loop."""


def backend_of(decision_lag: int = 0) -> Simulation:
    settings = make_settings(
        policy="vllm-v0", blocks=200, rate_scale=20.0, decision_lag=decision_lag
    )
    trace = prepare_trace(limit(sample_trace(), 9), settings)
    backend = prepare_run(trace, settings).backend
    assert isinstance(backend, Simulation)
    return backend


class Interrupt:
    """Raises KeyboardInterrupt at the n-th line of `BOOKS` that runs."""

    def __init__(self, line: int) -> None:
        self.left = line

    def __call__(self, frame: FrameType, event: str, argument: Any) -> Any:
        if frame.f_code.co_filename not in BOOKS:
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                raise KeyboardInterrupt
        return self


def is_broken_off(backend: Backend, line: int) -> bool:
    before = sys.gettrace()
    sys.settrace(Interrupt(line))
    try:
        return not backend.run()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)


def test_a_run_that_is_broken_off_anywhere_is_whole_or_known_not_to_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(request_log, "ROWS_AT_ONCE", 3)
    monkeypatch.setattr(step_log, "PACKED_AT_MOST", 5 * step_log._PACKED.itemsize)
    whole = broken = 0
    for line in range(1, 200_000, EVERY):
        backend = backend_of()
        if not is_broken_off(backend, line):
            break
        if not backend.books_hold():
            broken += 1
            continue
        whole += 1
        released = backend.num_released
        record = backend.record("interrupted")
        ids = [request.id for request in record.requests]
        assert sorted(ids) == list(range(released)), f"at line {line}"
        assert len(record.steps.column("sampled")) == len(record.steps), f"at line {line}"
        build_result(record)
    assert whole > 20, "most lines leave the books whole"
    assert broken > 20, "some lines are in the middle of a row"


@pytest.mark.parametrize("decision_lag", [0, 1])
def test_a_run_that_is_stopped_is_the_first_part_of_the_whole(decision_lag: int) -> None:
    def steps_up_to(last: int) -> tuple[bool, int, list[float]]:
        backend = backend_of(decision_lag)
        backend.observe(Stop(backend, last))
        came_to_its_end = backend.run()
        assert backend.books_hold()
        record = backend.record()
        assert len(list(record.requests)) == backend.num_released
        return came_to_its_end, len(record.steps), record.steps.column("end").tolist()

    came_to_its_end, number, ends = steps_up_to(10**9)
    assert came_to_its_end
    for last in range(0, number - 1, 41):
        assert steps_up_to(last) == (False, last + 1, ends[: last + 1])


def test_a_record_is_the_same_when_asked_once_more() -> None:
    backend = backend_of()
    backend.observe(Stop(backend, 4))
    assert not backend.run()
    rows = []
    for _ in range(2):
        record = backend.record("stopped")
        rows.append((list(record.requests), record.steps.column("end").tolist()))
    assert rows[0] == rows[1]
    assert 0 < backend.num_released == len(rows[0][0])


class Stop:
    """An observer that stops a run after an iteration."""

    def __init__(self, backend: Backend, last: int) -> None:
        self._backend = backend
        self._last = last

    def scheduled(self, scheduler: object, batch: object, arrived: object) -> None:
        pass

    def completed(self, scheduler: object, completion: Any, start: float, end: float) -> None:
        if completion.batch.iteration == self._last:
            self._backend.stop()
