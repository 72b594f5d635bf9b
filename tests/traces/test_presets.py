"""Presets against the traces they were fitted to, and the bundled sample against its command."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from schedsim.errors import ConfigError
from schedsim.traces import read_trace
from schedsim.traces.generators import PRESETS, find_preset, generate
from schedsim.traces.generators.presets import anyscale_2023
from schedsim.traces.sample import SAMPLE_RATE, SAMPLE_REQUESTS, SAMPLE_SEED, sample_trace

# preset, trace, largest KS distance of prompts and of outputs: the published fit's plus 0.01.
FITS = [
    ("azure-conv", "azure-2023/AzureLLMInferenceTrace_conv.csv.gz", 0.035, 0.065),
    ("azure-code", "azure-2023/AzureLLMInferenceTrace_code.csv.gz", 0.044, 0.075),
    ("sharegpt", "lengths/sharegpt_val_10k_llama2.csv.gz", 0.045, 0.033),
    ("mooncake-conv", "mooncake-fast25/conversation_trace.jsonl.gz", 0.056, 0.042),
]


def ks_distance(one: npt.NDArray[np.int32], other: npt.NDArray[np.int32]) -> float:
    grid = np.union1d(one, other)
    below = [np.searchsorted(np.sort(x), grid, side="right") / len(x) for x in (one, other)]
    return float(np.abs(below[0] - below[1]).max())


def dispersion(arrival: npt.NDArray[np.float64], window: float) -> float:
    counts = np.bincount((arrival // window).astype(np.int64))[:-1]
    return float(counts.var() / counts.mean())


@pytest.mark.parametrize("name", PRESETS)
def test_same_seed_same_trace(name: str) -> None:
    one, other = (generate(name, 500, seed=3) for _ in range(2))
    assert len(one) == 500
    for column, values in one.columns().items():
        assert np.array_equal(values, other.columns()[column])
    different = generate(name, 500, seed=4)
    assert not np.array_equal(one.output_tokens, different.output_tokens)


@pytest.mark.parametrize(("name", "file", "prompt_ks", "output_ks"), FITS)
def test_lengths_are_close_to_the_trace(
    shared_traces: Path, name: str, file: str, prompt_ks: float, output_ks: float
) -> None:
    real = read_trace(shared_traces / file)
    made = generate(name, 100_000, seed=5)
    assert ks_distance(real.prompt_tokens, made.prompt_tokens) < prompt_ks
    assert ks_distance(real.output_tokens, made.output_tokens) < output_ks
    assert made.prompt_tokens.mean() == pytest.approx(real.prompt_tokens.mean(), rel=0.05)
    assert made.output_tokens.mean() == pytest.approx(real.output_tokens.mean(), rel=0.05)
    assert made.prompt_tokens.max() <= real.prompt_tokens.max()
    assert made.output_tokens.max() <= real.output_tokens.max()


def test_azure_conv_drifts_as_the_trace_does(shared_traces: Path) -> None:
    real = read_trace(shared_traces / FITS[0][1])
    made = generate("azure-conv", 1_000_000, seed=6)
    assert dispersion(made.arrival, 60) == pytest.approx(dispersion(real.arrival, 60), rel=0.25)
    assert len(made) / made.arrival[-1] == pytest.approx(len(real) / real.arrival[-1], rel=0.05)


def test_azure_code_is_as_bursty_as_the_trace(shared_traces: Path) -> None:
    real = read_trace(shared_traces / FITS[1][1])
    made = generate("azure-code", 500_000, seed=7)
    gaps = np.diff(made.arrival)
    real_gaps = np.diff(real.arrival)
    cv, real_cv = gaps.std() / gaps.mean(), real_gaps.std() / real_gaps.mean()
    assert cv == pytest.approx(real_cv, rel=0.2)
    # The fit takes one rate for all busy periods, so it clusters less than the trace does.
    assert 0.5 < dispersion(made.arrival, 60) / dispersion(real.arrival, 60) < 1.0


@pytest.mark.parametrize("cap", [32, 128, 512, 1536])
def test_anyscale_draws_again_above_its_cap(cap: int) -> None:
    trace = generate(anyscale_2023(cap), 20_000, seed=8)
    assert (trace.prompt_tokens == 512).all()
    assert trace.output_tokens.max() <= cap
    assert (trace.arrival == 0).all()
    # Mean of an exponential of mean 128 below the cap, give or take the rounding to tokens.
    mean = 128 - cap / np.expm1(cap / 128)
    assert trace.output_tokens.mean() == pytest.approx(mean, rel=0.03)
    assert (trace.output_tokens == cap).mean() < 2.5 / cap


def test_a_preset_takes_a_rate() -> None:
    trace = generate("anyscale-2023", 50_000, seed=9, rate=4.0)
    assert len(trace) / trace.arrival[-1] == pytest.approx(4.0, rel=0.03)


def test_every_preset_names_its_source() -> None:
    for preset in PRESETS.values():
        assert len(preset.source) > 80
        assert len(preset.summary) < 95


@pytest.mark.parametrize(
    ("requests", "seed", "rate"), [(0, 1, None), (-3, 1, None), (5, -1, None), (5, 1, 0.0)]
)
def test_values_out_of_range_are_refused(requests: int, seed: int, rate: float | None) -> None:
    with pytest.raises(ConfigError):
        generate("sharegpt", requests, seed=seed, rate=rate)


def test_an_unknown_preset_gets_a_suggestion() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'azure-conv'"):
        find_preset("azure-con")


def test_the_bundled_sample_is_what_its_command_generates() -> None:
    sample = sample_trace()
    made = generate("azure-conv", SAMPLE_REQUESTS, rate=SAMPLE_RATE, seed=SAMPLE_SEED)
    assert len(sample) == SAMPLE_REQUESTS
    # exp and log may differ in the last bit between processors, so not bit for bit.
    np.testing.assert_allclose(sample.arrival, made.arrival, rtol=1e-9)
    np.testing.assert_allclose(sample.prompt_tokens, made.prompt_tokens, atol=1)
    np.testing.assert_allclose(sample.output_tokens, made.output_tokens, atol=1)
