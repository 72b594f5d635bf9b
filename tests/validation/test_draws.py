"""Simulations that scatter: their means are the simulated figures, and nothing else changes."""

from pathlib import Path

import numpy as np
import pytest

from schedsim.errors import ConfigError
from schedsim.experiments.validation.cells import make_cells
from schedsim.experiments.validation.metrics import METRICS, figure, mean_summary
from schedsim.experiments.validation.simulations import Simulations
from schedsim.results.stored_run import StoredRun
from schedsim.traces import Trace
from tests.validation.runs import LINEAR, fitted, settings, stored, validated


@pytest.fixture(scope="module")
def runs(trace: Trace, tmp_path_factory: pytest.TempPathFactory) -> list[StoredRun]:
    folder = tmp_path_factory.mktemp("measured")
    return [stored(folder / "one", trace, settings())]


def test_simulated_figures_are_means_of_the_draws(
    trace: Trace, runs: list[StoredRun], tmp_path: Path
) -> None:
    time = fitted(tmp_path / "time.json", scatter=0.1)
    plain, drawn = (
        validated(tmp_path / str(count), trace, runs, time, draws=count).cells[0]
        for count in (0, 4)
    )
    (cell,) = make_cells(runs, trace)
    summaries = Simulations(cell, time, tmp_path / "again", ()).draws(4)
    assert len({summary["makespan_s"] for summary in summaries}) == 4
    for name in METRICS:
        values = [figure(summary, name) for summary in summaries]
        row = drawn.rows[name]
        if None in values:
            assert row.simulated is None
            continue
        assert row.simulated == pytest.approx(np.mean(values))
        if any(values):
            assert row.scatter == pytest.approx(np.std(values, ddof=1) / np.mean(values))
        parts = drawn.budget[name]
        if parts["error"] is not None:
            assert row.agreement is not None
            assert parts["error"] == pytest.approx(row.agreement.error)
            total = sum(parts[part] for part in ("step_time", "host_time", "feedback"))
            assert total == pytest.approx(parts["error"], abs=1e-9)
    assert drawn.rows["e2e_s.mean"].simulated != plain.rows["e2e_s.mean"].simulated
    assert plain.rows["e2e_s.mean"].scatter is None
    assert [d.first_difference for d in drawn.divergences] == [
        d.first_difference for d in plain.divergences
    ]


def test_more_draws_begin_with_the_same(
    trace: Trace, runs: list[StoredRun], tmp_path: Path
) -> None:
    (cell,) = make_cells(runs, trace)
    time = fitted(tmp_path / "time.json", scatter=0.1)
    few, many = (Simulations(cell, time, tmp_path / "out", ()).draws(n) for n in (2, 3))
    assert [s["makespan_s"] for s in few] == [s["makespan_s"] for s in many[:2]]


def test_a_step_time_without_scatter_is_refused(
    trace: Trace, runs: list[StoredRun], tmp_path: Path
) -> None:
    for time in (LINEAR, fitted(tmp_path / "time.json")):
        with pytest.raises(ConfigError, match="--draws draws from the measured iterations"):
            validated(tmp_path / "out", trace, runs, time, draws=2)


def test_a_mean_of_what_one_lacks_is_none() -> None:
    whole = {"makespan_s": 1.0, "preemptions": 2, "latency": {"whole": {"ttft_s": {"mean": 3.0}}}}
    lacking = {"makespan_s": 3.0, "preemptions": 3, "latency": {"whole": {"ttft_s": None}}}
    found = mean_summary([whole, lacking])
    assert (found["makespan_s"], found["preemptions"]) == (2.0, 2.5)
    assert found["latency"]["whole"]["ttft_s"]["mean"] is None
    assert whole["makespan_s"] == 1.0
