"""The error budget: exact for a run against itself, and always the whole error."""

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedsim.experiments.validation.budget import PARTS, TOLD, largest_cause
from schedsim.experiments.validation.metrics import JUDGED, METRICS
from tests.validation import runs
from tests.validation.runs import small_trace, stored, validated

POLICIES = ("vllm", "sarathi,chunk_size=64", "srtf", "static", "vllm-v0", "vtc")


@pytest.mark.parametrize("lag", [0, 1])
@pytest.mark.parametrize("policy", [*POLICIES, "static,batch_size=4,max_wait=0.2"])
def test_a_run_against_itself_is_exact(policy: str, lag: int, tmp_path: Path) -> None:
    """With host and gap of their own, so that every part of the engine's loop is gone through."""
    time = runs.fitted(tmp_path / "time.json")
    trace = small_trace()
    chosen = runs.settings(policy=policy, decision_lag=lag, step_time=time)
    run = stored(tmp_path / "run", trace, chosen)
    (found,) = validated(tmp_path / "out", trace, [run], time).cells
    assert all(replay.same for replay in found.replays)
    assert all(divergence.same for divergence in found.divergences)
    assert found.steps["p90"] < 1e-9
    for name in METRICS:
        for part in ("error", *PARTS):
            value = found.budget[name][part]
            assert value is None or abs(value) < 1e-9, (name, part)
        agreed = found.rows[name].agreement
        assert agreed is None or not agreed.error
    assert found.budget["e2e_s.mean"]["error"] is not None
    assert set(found.shifts.values()) == {0.0}
    for figures in found.requests.values():
        assert figures["simulated"] is not None
        assert figures["simulated"]["p90"] == 0.0


@settings(max_examples=12)
@given(
    policy=st.sampled_from(POLICIES),
    lag=st.integers(0, 1),
    rate=st.sampled_from([20.0, 80.0, 200.0]),
    blocks=st.sampled_from([24, 30, 100]),
    slower=st.floats(0.8, 1.3),
    seed=st.integers(0, 5),
)
def test_the_parts_add_up_to_the_error(
    policy: str, lag: int, rate: float, blocks: int, slower: float, seed: int
) -> None:
    with TemporaryDirectory() as name:
        folder = Path(name)
        trace = small_trace(40, rate, seed)
        measured = runs.fitted(folder / "measured.json")
        chosen = runs.settings(policy=policy, decision_lag=lag, step_time=measured, blocks=blocks)
        run = stored(folder / "run", trace, chosen)
        other = runs.fitted(folder / "other.json", slower=slower)
        (found,) = validated(folder / "out", trace, [run], other).cells
        assert found.replays[0].same
        for metric in JUDGED:
            parts = found.budget[metric]
            if parts["error"] is None:
                continue
            row = found.rows[metric]
            assert row.agreement is not None
            assert parts["error"] == pytest.approx(row.agreement.error, abs=1e-9)
            assert parts["decisions"] == 0.0
            told = [parts[part] for part in PARTS]
            assert None not in told
            assert sum(part or 0.0 for part in told) == pytest.approx(parts["error"], abs=1e-9)
        share = [row["share"] for row in found.steps["by_size"]]
        assert sum(share) == pytest.approx(found.steps["total"], abs=1e-9)
        by_kind = [row["share"] for row in found.steps["by_kind"].values()]
        assert sum(by_kind) == pytest.approx(found.steps["total"], abs=1e-9)


def test_a_slower_device_is_the_step_times_fault_and_not_the_hosts(tmp_path: Path) -> None:
    """One request at a time leaves decisions nothing to answer to."""
    trace = small_trace(30, rate=0.05)
    measured = runs.fitted(tmp_path / "measured.json")
    run = stored(tmp_path / "run", trace, runs.settings(step_time=measured))
    other = runs.fitted(tmp_path / "other.json", slower=1.1)
    (found,) = validated(tmp_path / "out", trace, [run], other).cells
    for metric in ("ttft_s.mean", "tpot_s.mean", "itl_s.mean", "e2e_s.mean"):
        parts = found.budget[metric]
        assert parts["step_time"] == pytest.approx(parts["error"], rel=1e-6)
        assert parts["step_time"] is not None
        assert 0.05 < parts["step_time"] < 0.1  # host and gap are as they were
        assert parts["host_time"] == pytest.approx(0.0, abs=1e-9)
        assert parts["feedback"] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("slower", [0.95, 1.05])
def test_an_overloaded_engine_has_its_error_from_the_step_time(
    slower: float, tmp_path: Path
) -> None:
    """Who is admitted came long before, so that arrivals do not hold back a faster device."""
    trace = small_trace(120, rate=100.0)
    measured = runs.fitted(tmp_path / "measured.json")
    chosen = runs.settings(step_time=measured, blocks=400, max_seqs=8)
    run = stored(tmp_path / "run", trace, chosen)
    assert run.summary["stable"] is False
    other = runs.fitted(tmp_path / "other.json", slower=slower)
    (found,) = validated(tmp_path / "out", trace, [run], other).cells
    parts = found.budget["e2e_s.mean"]
    assert parts["error"] is not None
    assert parts["feedback"] is not None
    assert abs(parts["error"]) > 0.03
    assert abs(parts["feedback"]) < 0.1 * abs(parts["error"])


@pytest.mark.parametrize("lag", [0, 1])
@pytest.mark.parametrize("policy", [*POLICIES, "edf"])
def test_without_another_decision_there_is_no_feedback(
    policy: str, lag: int, tmp_path: Path
) -> None:
    """All come at once, so decisions answer to no clock and step and host time are all there is:
    the simulation that takes its decisions anew has to end where the held ones do."""
    measured = runs.fitted(tmp_path / "measured.json")
    chosen = runs.settings(
        policy=policy, decision_lag=lag, step_time=measured, arrivals="burst", estimator=runs.LINEAR
    )
    run = stored(tmp_path / "run", small_trace(), chosen)
    other = runs.fitted(tmp_path / "other.json", slower=1.17)
    (found,) = validated(tmp_path / "out", small_trace(), [run], other).cells
    assert found.divergences[0].same
    assert run.summary["preemptions"] > 0 or policy == "static"
    for metric in JUDGED:
        parts = found.budget[metric]
        if parts["error"] is not None:
            assert abs(parts["error"]) > 0.05
            assert parts["feedback"] == pytest.approx(0.0, abs=1e-9)


def test_a_closed_loop_is_not_divided(tmp_path: Path) -> None:
    trace = small_trace(30)
    run = stored(tmp_path / "run", trace, runs.settings(concurrency=4))
    (found,) = validated(tmp_path / "out", trace, [run], "roofline").cells
    parts = found.budget["e2e_s.mean"]
    assert parts["step_time"] is None
    assert parts["host_time"] is None
    assert parts["feedback"] == pytest.approx(parts["error"])
    assert found.curves == {}


def budget_of(**known: float) -> dict[str, float | None]:
    budget: dict[str, float | None] = dict.fromkeys(("error", *TOLD))
    return budget | known


@pytest.mark.parametrize(
    ("budget", "cause"),
    [
        (budget_of(error=-0.1, step_time=-0.3, feedback=0.2, mean_step=-0.09), "step_time"),
        (budget_of(error=-0.1, step_time=0.3, feedback=-0.4, mean_step=-0.09), "step_time"),
        (budget_of(error=-0.1, step_time=0.3, feedback=-0.4, mean_step=-0.04), "feedback"),
        (budget_of(error=-0.1, step_time=0.3, feedback=-0.4, mean_step=-0.16), "feedback"),
        (budget_of(error=0.1, step_time=0.02, feedback=0.08, mean_step=-0.1), "feedback"),
        (budget_of(error=0.1, step_time=0.08, feedback=0.02), "step_time"),
        (budget_of(error=0.1, mean_step=0.1), "step_time"),
        (budget_of(error=0.1), None),
        (budget_of(error=0.0, step_time=0.1, feedback=-0.1, mean_step=0.1), None),
        (budget_of(), None),
    ],
)
def test_the_cause_is_the_mean_step_where_it_is_most_of_the_error(
    budget: dict[str, float | None], cause: str | None
) -> None:
    assert largest_cause(budget) == cause


@pytest.mark.parametrize("rate", [0.05, 20.0])
def test_the_mean_step_is_the_error_where_every_step_is_longer(rate: float, tmp_path: Path) -> None:
    """With one request at a time to the digits; with more, whose decisions part, nearly."""
    trace = small_trace(40, rate)
    measured = runs.fitted(tmp_path / "measured.json", slower=1.04)
    told = runs.fitted(tmp_path / "told.json")
    run = stored(tmp_path / "run", trace, runs.settings(step_time=measured))
    (found,) = validated(tmp_path / "out", trace, [run], told).cells
    budget = found.budget["e2e_s.mean"]
    assert budget["error"] is not None
    assert budget["error"] < -0.03
    assert budget["mean_step"] == pytest.approx(budget["error"], rel=1e-6 if rate < 1 else 0.1)
    assert largest_cause(budget) == "step_time"
