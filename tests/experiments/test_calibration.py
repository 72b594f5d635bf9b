"""A fit finds what made the times; noise and pauses hardly move it, and no curve of it falls."""

import dataclasses
from pathlib import Path

import hypothesis
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.costs.curves import Curve
from schedsim.costs.features import UNPADDED, Padding
from schedsim.costs.fitted import make_fitted
from schedsim.costs.fitted_file import FittedFile, Part, Parts
from schedsim.costs.throttle import Throttle, TokenRate
from schedsim.errors import ConfigError
from schedsim.experiments import calibration
from schedsim.experiments.calibration import error_figures
from schedsim.experiments.choosing import (
    CONTEXT,
    FOLDS,
    WINDOW,
    Choice,
    choose,
    held_out_periods,
)
from schedsim.experiments.fitting import STRAIGHT, fit, fitted_periods, seconds_of
from schedsim.experiments.iterations import Iterations, joined
from schedsim.experiments.provenance import check_alike
from schedsim.experiments.regions import regions_of, sizes_of
from schedsim.experiments.validation.step_errors import told_of
from schedsim.results.stored_run import StoredRun
from tests.experiments.iterations import TRUE, Floats, made_up

pytest.importorskip("scipy")

FEW = max(1, hypothesis.settings.default.max_examples // 4)


def slopes(part: Part) -> list[float]:
    return [slope for term in part.terms.values() for slope in term.slopes]


def file_of(parts: Parts, throttle: Throttle | None = None) -> FittedFile:
    return FittedFile(
        parts=parts, throttle=throttle, ranges={}, steps=100, provenance={}, residuals={},
        warnings=[],
    )  # fmt: skip


def figures(parts: Parts, measured: Iterations, true: Iterations) -> dict[str, float]:
    found = error_figures(fitted_periods(parts, measured), true.period)
    return {name: value for name, value in found.items() if value is not None}


@hypothesis.settings(max_examples=FEW)
@given(seed=st.integers(0, 2**32 - 1), straight=st.sampled_from(STRAIGHT))
def test_straight_lines_come_back_as_they_were(seed: int, straight: float) -> None:
    """On iterations that the fit never saw, too; and features that cost nothing get nothing."""
    parts = fit(made_up(300, seed), straight)
    others = made_up(300, seed + 1)
    assert figures(parts, others, others)["p90"] < 1e-4
    device = {name: term.slopes[-1] for name, term in parts.device.terms.items()}
    for name, slope in (("prefill_tokens", 6e-5), ("decode_context", 5e-8)):
        assert device[name] == pytest.approx(slope, rel=1e-3)
    assert "tokens" not in parts.device.terms, "prefill tokens and decodes are told apart"


def weights_and_more(features: dict[str, Floats]) -> Floats:
    """Seconds of a device with pieces: weights read once for up to 200 tokens, then arithmetic."""
    products = np.maximum(4e-3, 2e-5 * features["tokens"])
    contexts = np.maximum(3e-4, 6e-8 * features["decode_context"]) * (features["tokens"] > 0)
    chunks = 5e-4 * (features["prefill_requests"] > 0) + 2e-9 * features["prefill_attention"]
    return np.asarray(products + contexts + chunks + 3e-8 * features["longest_context"])


@pytest.mark.parametrize("seed", range(4))
def test_pieces_are_found_through_noise(seed: int) -> None:
    graphs = Padding(
        decodes=[1, 2, 4, 8, 16, 32, 64], mixed=[64, 128, 256, 512], chunks=[2, 2, 3, 3]
    )

    def iterations(seed: int, noise: float = 0.0) -> Iterations:
        return made_up(3000, seed, noise, padding=graphs, device=weights_and_more)

    parts = fit(iterations(seed, 0.02))
    unseen = iterations(seed + 100)
    found = figures(parts, unseen, unseen)
    assert found["median"] < 0.01
    assert found["p90"] < 0.02
    assert abs(found["total"]) < 0.005
    tokens = Curve(parts.device.terms["tokens"].knots, parts.device.terms["tokens"].slopes)
    assert tokens.at(128) - tokens.at(16) < 3e-4, "weights are read once"
    assert tokens.at(1200) - tokens.at(400) == pytest.approx(800 * 2e-5, rel=0.1)


@pytest.mark.parametrize("seed", range(4))
def test_noise_averages_out(seed: int) -> None:
    measured = made_up(2000, seed, noise=0.1)
    found = figures(fit(measured, max(STRAIGHT)), measured, made_up(2000, seed))
    assert found["p90"] < 0.03
    assert found["total"] == pytest.approx(0.0, abs=0.01)


@pytest.mark.parametrize("seed", range(4))
def test_a_pause_of_the_operating_system_does_not_move_the_fit(seed: int) -> None:
    calm = made_up(600, seed, noise=0.02)
    device = calm.device.copy()
    device[np.random.default_rng(seed).choice(600, 6, replace=False)] += 1.0
    disturbed = dataclasses.replace(calm, device=device)
    before, after = (fitted_periods(fit(found, 0.1), calm) for found in (calm, disturbed))
    np.testing.assert_allclose(after, before, rtol=0.03)


def test_a_rare_batch_that_was_repeated_is_no_outlier() -> None:
    """Five measurements of one large batch, which nothing else tells of, are fitted."""
    many = made_up(1000, 3, noise=0.01)
    rare = many.take(many.kind == 1).take(np.arange((many.kind == 1).sum()) < 1)
    place = list(many.terms).index("sampled")
    features = np.repeat(rare.features, 5, axis=0)
    features[:, place] = 2000
    columns = {
        f.name: np.repeat(getattr(rare, f.name), 5, axis=0) for f in dataclasses.fields(rare)
    }
    large = Iterations(**{**columns, "features": features, "device": np.full(5, 0.9)})
    parts = fit(joined([many, large]))
    told = fitted_periods(parts, large) - seconds_of(parts.host, large.terms)
    np.testing.assert_allclose(told, 0.9, rtol=0.05)


def test_times_that_scatter_by_a_factor_are_not_fitted_short() -> None:
    calm = made_up(3000, 5)
    factor = np.random.default_rng(5).uniform(0.4, 1.6, 3000)
    scattered = dataclasses.replace(calm, device=calm.device * factor)
    total = figures(fit(scattered), calm, calm)["total"]
    assert total == pytest.approx(0.0, abs=0.03)


def test_the_fit_is_repeatable() -> None:
    assert fit(made_up(300, 1, noise=0.2)) == fit(made_up(300, 1, noise=0.2))


@hypothesis.settings(max_examples=FEW)
@given(seed=st.integers(0, 2**32 - 1), straight=st.sampled_from(STRAIGHT))
def test_no_slope_is_negative_whatever_was_measured(seed: int, straight: float) -> None:
    noise = np.random.default_rng(seed).exponential(1.0, (3, 60))
    wild = dataclasses.replace(made_up(60, seed), host=noise[0], device=noise[1], gap=noise[2])
    parts = fit(wild, straight)
    for part in (parts.host, parts.device, parts.gap):
        assert part.base >= 0
        assert min(slopes(part), default=0.0) >= 0


def test_the_step_time_of_a_file_is_the_fit() -> None:
    measured = made_up(100, 3, noise=0.3)
    parts = fit(measured)
    cost = make_fitted(file_of(parts), "made-up.json")
    seconds = [cost.seconds(shape) for shape in measured.shapes()]
    whole = dataclasses.replace(measured, gap=np.nan_to_num(measured.gap))
    assert seconds == pytest.approx(fitted_periods(parts, whole).tolist(), rel=1e-12)


def throttled(calm: Iterations, throttle: Throttle, idle_s: float = 0.0) -> Iterations:
    """The same batches with pauses between them, on a device that slows down under load."""
    rate, now, device = TokenRate(throttle.window_s), 0.0, []
    for shape in calm.shapes():
        cost = make_fitted(file_of(TRUE, throttle), "made-up.json")
        seconds = cost.parts_after(shape, rate.at(now)).device
        rate.ran(throttle.tokens_of(shape), now, seconds)
        now += seconds + idle_s
        device.append(seconds)
    everywhere = np.ones(len(calm), dtype=np.bool_)
    idle = np.append(np.inf, np.full(len(calm) - 1, idle_s))
    scatter = np.random.default_rng(1).normal(1.0, 0.01, len(calm))
    return dataclasses.replace(
        calm, device=np.array(device) * scatter, idle=idle, timed=everywhere, hidden=everywhere
    )


def rate_of(iterations: Iterations) -> Floats:
    return iterations.token_rates(WINDOW, CONTEXT)[1]


def test_a_throttle_is_found_where_there_is_one() -> None:
    true = Throttle(window_s=WINDOW, slowdown=2e-5, context=CONTEXT)
    measured = throttled(made_up(800, 4), true)
    found = choose(measured, rate_of(measured)).throttle
    assert found is not None
    assert (found.window_s, found.context) == (WINDOW, CONTEXT)
    assert found.slowdown == pytest.approx(true.slowdown, rel=0.4)
    factor = 1.0 + found.slowdown * rate_of(measured)
    knowing = file_of(fit(measured, max(STRAIGHT), factor), found)
    ignorant = file_of(fit(measured, max(STRAIGHT)))
    at_rest = throttled(made_up(800, 5), true, idle_s=0.5)
    off = [
        np.median(told_of(make_fitted(file, "made-up.json"), at_rest).device / at_rest.device)
        for file in (knowing, ignorant)
    ]
    assert off[0] == pytest.approx(1.0, abs=0.03)
    assert off[1] > 1.05, "of a device that was always busy it knows only how slow it is then"


def test_no_throttle_is_found_where_there_is_none_or_nobody_can_tell() -> None:
    steady = made_up(800, 4, noise=0.02)
    timed = dataclasses.replace(steady, timed=np.ones(800, dtype=np.bool_))
    assert choose(timed, rate_of(timed)).throttle is None
    measured = throttled(made_up(800, 4), Throttle(window_s=0.05, slowdown=2e-5))
    by_host = dataclasses.replace(measured, timed=np.zeros(800, dtype=np.bool_))
    assert choose(by_host, rate_of(by_host)).throttle is None


def test_held_out_sizes_are_fitted_by_what_saw_none_of_them() -> None:
    """Where a fold's times are twice what they should be, its fit says what they should be."""
    measured = made_up(400, 2)
    fold = sizes_of(measured) % FOLDS == 2
    device = np.where(fold, 2 * measured.device, measured.device)
    held_out = held_out_periods(dataclasses.replace(measured, device=device), Choice(STRAIGHT[0]))
    assert held_out is not None
    np.testing.assert_allclose(held_out[fold], measured.period[fold], rtol=1e-3)
    assert (held_out[~fold] > 1.01 * measured.period[~fold]).mean() > 0.5


def test_sizes_that_were_repeated_are_held_out_together() -> None:
    one = made_up(50, 1)
    twice = joined([one, one])
    size = sizes_of(twice)
    assert (size[:50] == size[50:]).all()
    firsts = [size.tolist().index(number) for number in range(size.max() + 1)]
    assert firsts == sorted(firsts)
    assert held_out_periods(made_up(20, 1), Choice(STRAIGHT[0])) is None


def test_every_iteration_is_in_a_region_of_its_kind() -> None:
    measured = made_up(500, 9)
    kinds = [calibration.KINDS[kind] for kind in measured.kind]
    regions = regions_of(measured)
    assert all(region.startswith(kind) for region, kind in zip(regions, kinds, strict=True))
    assert {"mixed, 513 to 2,048 tokens", "prefill, 129 to 512 tokens, after context"} <= {*regions}
    decodes = [region for region in regions if region.startswith("decode")]
    assert {region.rpartition(", ")[2] for region in decodes} == {
        "short contexts",
        "long contexts",
        "uneven contexts",
    }


def without(measured: Iterations, **columns: Floats) -> Iterations:
    """The iterations with other features."""
    features = measured.features.copy()
    for name, column in columns.items():
        features[:, list(measured.terms).index(name)] = column
    return dataclasses.replace(measured, features=features)


def test_what_the_runs_cannot_tell_apart_is_said() -> None:
    measured = made_up(200, 4)
    sampled = measured.terms["decode_requests"] + measured.terms["prefill_requests"]
    nothing = np.zeros(200)
    changed = without(measured, swapped_blocks=nothing, sampled=sampled)
    never, merged = calibration._warnings(changed, UNPADDED)
    assert never.endswith("so taken to cost nothing: swapped_blocks")
    assert "which carry its cost: sampled" in merged


def test_terms_that_nearly_go_together_are_named() -> None:
    measured = made_up(200, 4)
    context = 500 * measured.terms["decode_requests"] + np.arange(200) % 7 * 40
    changed = without(measured, decode_context=context, mixed_context=np.zeros(200))
    found = calibration._warnings(changed, UNPADDED)
    assert any("decode_requests and decode_context" in text for text in found)


def test_iterations_of_one_kind_alone_can_be_fitted() -> None:
    measured = made_up(400, 6)
    decodes = measured.take(measured.kind == 1)
    parts = fit(decodes)
    assert "prefill_tokens" not in parts.device.terms
    assert figures(parts, decodes, decodes)["p90"] == pytest.approx(0.0, abs=1e-4)


def test_a_run_without_gaps_has_none() -> None:
    measured = made_up(100, 7)
    alone = dataclasses.replace(measured, gap=np.full(100, np.nan))
    assert fit(alone).gap == Part()


def measured_on(device: str, threads: int, **more: object) -> StoredRun:
    """A run of which only what ran it is known."""
    execution = {"device": device, "dtype": "float32", "attention": "torch", "threads": threads}
    manifest = {"config": {"model": "tiny"}, "device": device, "execution": {**execution, **more}}
    nothing = pa.table({})
    return StoredRun(Path(f"run-{threads}"), manifest, {}, nothing, nothing, f"{threads}")


def test_runs_must_be_alike_but_threads_are_of_no_matter_to_a_gpu() -> None:
    check_alike([measured_on("cuda:0", 1), measured_on("cuda:0", 8)])
    with pytest.raises(ConfigError, match="differ in threads"):
        check_alike([measured_on("cpu", 1), measured_on("cpu", 8)])
    with pytest.raises(ConfigError, match="differ in kernels"):
        check_alike(
            [
                measured_on("cuda:0", 1, kernels="paged"),
                measured_on("cuda:0", 8, kernels="contiguous"),
            ]
        )
