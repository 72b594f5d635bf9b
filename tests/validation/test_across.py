"""What is found of loads and policies together: the load shift, capacities, and the choice."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.experiments.validation.choice import choose
from schedsim.experiments.validation.load_shift import FACTORS, Curve, load_shift
from schedsim.experiments.validation.metrics import METRICS, figure
from schedsim.experiments.validation.rates import highest_rate
from schedsim.experiments.validation.saturation import Tables, capacity_of
from tests.validation.runs import LINEAR, settings, small_trace, stored, validated

NAMES = ("a", "b", "c", "d")
VALUES = st.lists(st.floats(0.1, 10.0), min_size=4, max_size=4)


@given(st.floats(0.85, 1.15), st.floats(0.3, 0.79))
def test_the_shift_of_a_queue_is_found(shift: float, load: float) -> None:
    """A waiting time of rho / (1 - rho), measured at a load that the simulation has `shift` of."""

    def wait(rho: float) -> float:
        return rho / (1 - rho)

    curve = Curve(wait(load * shift), [wait(load * factor) for factor in FACTORS])
    found = load_shift([curve])
    assert found is not None
    assert found == pytest.approx(shift - 1, abs=0.004)


@given(st.lists(st.floats(0.1, 5.0), min_size=9, max_size=9))
def test_a_curve_against_itself_is_not_shifted(simulated: list[float]) -> None:
    at_one = simulated[FACTORS.index(1.0)]
    assert load_shift([Curve(at_one, simulated)]) == 0.0


def test_several_curves_have_one_shift() -> None:
    curves = [Curve((2.0 * 1.05) ** k, [(2.0 * f) ** k for f in FACTORS]) for k in (1, 3)]
    assert load_shift(curves) == pytest.approx(0.05, abs=1e-6)


def test_a_latency_that_no_load_brings_has_no_shift() -> None:
    assert load_shift([Curve(9.0, list(FACTORS))]) is None
    assert load_shift([Curve(0.1, list(FACTORS))]) is None


def test_a_curve_that_does_not_depend_on_the_load_has_a_shift_only_where_it_is_right() -> None:
    flat = [3.0] * len(FACTORS)
    assert load_shift([Curve(3.0, flat)]) == 0.0
    assert load_shift([Curve(4.0, flat)]) is None
    noisy = [3.0 + (1e-9 if place % 2 else 0.0) for place in range(len(FACTORS))]
    assert load_shift([Curve(4.0, noisy)]) is None
    assert load_shift([Curve(4.0, flat), Curve(1.05, list(FACTORS))]) == pytest.approx(0.05)


@given(VALUES, VALUES, st.sampled_from(["e2e_s.mean", "output_tokens_per_s"]))
def test_regret_is_never_below_0_and_is_0_for_the_right_order(
    measured: list[float], simulated: list[float], metric: str
) -> None:
    repeats = {name: [value] for name, value in zip(NAMES, measured, strict=True)}
    told = dict(zip(NAMES, simulated, strict=True))
    found = choose(metric, repeats, told)
    assert found.regret >= 0.0
    right = choose(metric, repeats, {name: value[0] for name, value in repeats.items()})
    assert right.regret == 0.0
    assert right.order in (1.0, None)


def test_the_pick_is_measured_and_of_equals_the_worst() -> None:
    measured = {"a": [1.0, 1.2], "b": [1.4, 1.6], "c": [3.0, 3.0]}
    found = choose("e2e_s.mean", measured, {"a": 2.0, "b": 1.9, "c": 5.0})
    assert (found.best, found.pick) == ("a", "b")
    assert found.regret == pytest.approx(1.5 / 1.1 - 1)
    assert found.spread == pytest.approx(0.2 / 1.1)
    assert found.is_real
    assert found.order == pytest.approx(1 / 3)
    assert choose("e2e_s.mean", measured, dict.fromkeys(measured, 1.0)).pick == "c"
    assert choose("output_tokens_per_s", measured, {"a": 2.0, "b": 1.9, "c": 5.0}).regret == 0.0


def test_the_highest_rate_lies_between_two() -> None:
    assert highest_rate([1.0, 2.0, 4.0], [1.0, 0.95, 0.85]) == pytest.approx(3.0)
    assert highest_rate([1.0, 2.0], [1.0, 0.95]) is None
    assert highest_rate([1.0, 2.0], [0.5, 0.4]) is None
    assert highest_rate([1.0, 2.0], [1.0, None]) is None


def test_a_quantile_needs_five_samples_beyond_it() -> None:
    def told(metric: str, count: int) -> float | None:
        *path, last = METRICS[metric]
        part: dict[str, object] = {"count": count, last: 2.0}
        for key in reversed(path):
            part = {key: part}
        return figure(part, metric)

    for metric, needed in (("ttft_s.p50", 10), ("e2e_s.p90", 50), ("itl_s.p99", 500)):
        assert told(metric, needed - 1) is None
        assert told(metric, needed) == 2.0
    assert told("ttft_s.mean", 1) == 2.0


def test_only_an_engine_with_a_line_has_a_capacity(tmp_path: Path) -> None:
    for rate, saturated in ((2000.0, True), (5.0, False)):
        run = stored(tmp_path / str(rate), small_trace(rate=rate), settings(max_seqs=4))
        tables = Tables(run.summary, run.steps)
        found = capacity_of([tables, tables], tables, 0.015)
        assert found is not None
        assert found.is_saturated is saturated
        assert set(found.agreements) == (set(found.measured) if saturated else set())
        for agreed in found.agreements.values():
            assert agreed.error == 0.0
            assert agreed.verdict == "equivalent"


def test_policies_are_not_ranked_by_what_took_no_time(tmp_path: Path) -> None:
    """A prefill alone costs something here, so that tokens of most requests come at once."""
    (tmp_path / "time.toml").write_text(
        "base_ms = 0\nprefill_token_ms = 0.05\ndecode_request_ms = 0\n"
        "prefill_attention_ms = 0\ndecode_context_ms = 0\n"
    )
    time = f"linear:{tmp_path / 'time.toml'}"
    trace = small_trace(rate=2.0)
    runs = [
        stored(tmp_path / policy, trace, settings(policy=policy, step_time=time))
        for policy in ("vllm", "srtf")
    ]
    found = validated(tmp_path / "out", trace, runs, time)
    assert found.cells[0].rows["itl_s.p50"].mean == 0.0
    ranked = {choice.metric for choice in found.choices}
    assert "e2e_s.mean" in ranked
    assert "itl_s.p50" not in ranked


def test_policies_and_rates_are_put_together(tmp_path: Path) -> None:
    trace = small_trace()
    asked = {
        "a": {"policy": "vllm"},
        "b": {"policy": "srtf"},
        "c": {"policy": "vllm", "rate_scale": 0.5},
        "d": {"policy": "vllm", "rate_scale": 3.0},
    }
    runs = [
        stored(tmp_path / name, trace, settings(slo_ttft=0.4, **given))
        for name, given in asked.items()
    ]
    found = validated(tmp_path / "out", trace, runs, LINEAR)
    names = [cell.cell.name for cell in found.cells]
    assert names == ["vllm,rate_scale=1.0", "srtf", "vllm,rate_scale=0.5", "vllm,rate_scale=3.0"]
    assert {name for choice in found.choices for name in choice.measured} == set(names[:2])
    assert all(choice.regret == 0.0 for choice in found.choices)
    (curve,) = found.curves
    assert curve.policy == "vllm"
    assert list(curve.rates) == sorted(curve.rates)
    assert np.allclose(np.array(curve.rates) / curve.rates[0], [1.0, 2.0, 6.0])
    assert set(curve.shifts.values()) == {0.0}
    assert curve.measured_capacity == curve.simulated_capacity
    assert curve.measured_capacity is not None
    assert curve.capacity_error == 0.0
