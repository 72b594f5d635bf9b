"""A fit finds the coefficients that made the times; noise and pauses hardly move it."""

import dataclasses
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.costs.fitted import COUNTS, TERMS, Coefficients, FittedFile, Parts, make_fitted
from schedsim.errors import ConfigError
from schedsim.experiments import calibration
from schedsim.experiments.calibration import error_figures, fit, fitted_periods
from schedsim.experiments.iterations import Iterations
from schedsim.results.stored_run import StoredRun
from tests.experiments.iterations import TRUE, made_up


def all_terms(parts: Parts) -> list[float]:
    named = (parts.host, parts.device, parts.gap)
    return [getattr(part, name) for part in named for name in TERMS]


@given(seed=st.integers(0, 2**32 - 1))
def test_exact_times_give_back_the_coefficients(seed: int) -> None:
    assert all_terms(fit(made_up(200, seed))) == pytest.approx(all_terms(TRUE), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("seed", range(8))
def test_noise_averages_out(seed: int) -> None:
    measured = made_up(2000, seed, noise=0.1)
    figures = error_figures(fitted_periods(fit(measured), measured), made_up(2000, seed).period)
    assert figures["p90"] is not None
    assert figures["p90"] < 0.03
    assert figures["total"] == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize("seed", range(8))
def test_a_pause_of_the_operating_system_does_not_move_the_fit(seed: int) -> None:
    calm = made_up(600, seed, noise=0.02)
    device = calm.device.copy()
    device[np.random.default_rng(seed).choice(600, 6, replace=False)] += 1.0
    disturbed = dataclasses.replace(calm, device=device)
    before, after = (fitted_periods(fit(found), calm) for found in (calm, disturbed))
    np.testing.assert_allclose(after, before, rtol=0.02)


def test_times_that_scatter_by_a_factor_are_not_fitted_short() -> None:
    calm = made_up(3000, 5)
    factor = np.random.default_rng(5).uniform(0.4, 1.6, 3000)
    scattered = dataclasses.replace(calm, device=calm.device * factor)
    total = error_figures(fitted_periods(fit(scattered), calm), calm.period)["total"]
    assert total == pytest.approx(0.0, abs=0.03)


def test_the_fit_is_repeatable() -> None:
    assert fit(made_up(300, 1, noise=0.2)) == fit(made_up(300, 1, noise=0.2))


@pytest.mark.parametrize("seed", range(8))
def test_no_coefficient_is_negative(seed: int) -> None:
    noise = np.random.default_rng(seed).exponential(1.0, (3, 60))
    wild = dataclasses.replace(made_up(60, seed), host=noise[0], device=noise[1], gap=noise[2])
    assert min(all_terms(fit(wild))) >= 0


def test_the_step_time_of_a_file_is_the_fit() -> None:
    measured = made_up(100, 3)
    parts = fit(measured)
    file = FittedFile(parts=parts, ranges={}, steps=100, provenance={}, residuals={}, warnings=[])
    cost = make_fitted(file, "made-up.json")
    seconds = [cost.seconds(shape) for shape in measured.shapes()]
    whole = dataclasses.replace(measured, gap=np.nan_to_num(measured.gap))
    assert seconds == pytest.approx(fitted_periods(parts, whole).tolist(), rel=1e-12)


def test_what_the_runs_cannot_tell_apart_is_said() -> None:
    measured = made_up(200, 4)
    counts = measured.counts.copy()
    counts[:, COUNTS.index("swapped_blocks")] = 0
    prefills = counts[:, COUNTS.index("prefill_requests")]
    counts[:, COUNTS.index("sampled")] = counts[:, COUNTS.index("decode_requests")] + prefills
    never, merged = calibration._warnings(dataclasses.replace(measured, counts=counts))
    assert "so taken to cost nothing: swapped_blocks" in never
    assert "which carry its cost: sampled" in merged


def test_terms_that_nearly_go_together_are_named() -> None:
    measured = made_up(200, 4)
    counts = measured.counts.copy()
    decodes = counts[:, COUNTS.index("decode_requests")]
    counts[:, COUNTS.index("decode_context")] = 500 * decodes + np.arange(200) % 7 * 40
    found = calibration._warnings(dataclasses.replace(measured, counts=counts))
    assert any("decode_context and decode_requests" in text for text in found) or any(
        "decode_requests and decode_context" in text for text in found
    )


def test_iterations_of_one_kind_alone_can_be_fitted() -> None:
    measured = made_up(400, 6)
    decodes = measured.take(measured.kind == 1)
    assert isinstance(decodes, Iterations)
    parts = fit(decodes)
    assert parts.device.prefill_tokens == 0.0
    figures = error_figures(fitted_periods(parts, decodes), decodes.period)
    assert figures["p90"] == pytest.approx(0.0, abs=1e-6)


def test_a_run_without_gaps_has_none() -> None:
    measured = made_up(100, 7)
    alone = dataclasses.replace(measured, gap=np.full(100, np.nan))
    assert fit(alone).gap == Coefficients()


def measured_on(device: str, threads: int) -> StoredRun:
    """A run of which only what ran it is known."""
    execution = {"device": device, "dtype": "float32", "attention": "torch", "threads": threads}
    manifest = {"config": {"model": "tiny"}, "device": device, "execution": execution}
    nothing = pa.table({})
    return StoredRun(Path(f"run-{threads}"), manifest, {}, nothing, nothing, f"{threads}")


def test_threads_are_of_no_matter_to_a_gpu() -> None:
    calibration._check_alike([measured_on("cuda:0", 1), measured_on("cuda:0", 8)])
    with pytest.raises(ConfigError, match="differ in threads"):
        calibration._check_alike([measured_on("cpu", 1), measured_on("cpu", 8)])
