"""Generators against theory: moments within five standard errors, invariants for any seed."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schedsim.errors import ConfigError
from schedsim.traces.generators import parse_arrivals, parse_law, parse_sessions, parse_tenants
from schedsim.traces.generators.arrivals import (
    Burst,
    Drifting,
    Gamma,
    OnOff,
    Poisson,
    Weibull,
    weibull_shape,
)
from schedsim.traces.generators.lengths import Exponential, Fixed, LognormalMixture, sample_pair
from schedsim.traces.generators.sessions import SessionModel
from schedsim.traces.generators.workload import Workload, mean_rate, with_rate

ARRIVALS = [
    "deterministic:rate=5",
    "poisson:rate=5",
    "gamma:rate=5,cv=3",
    "weibull:rate=5,cv=0.4",
    "onoff",
    "onoff:rate=7",
    "drifting:rate=5",
    "burst",
]
LAWS = [
    "fixed:512",
    "uniform:low=3,high=90",
    "exponential:mean=128,high=1536,over=redraw",
    "lognormal:mu=5,sigma=1",
    "mixture:weight=0.3,mu1=3,sigma1=0.5,mu2=6,sigma2=1,low=4,high=3000",
    "zipf:exponent=1.1,high=4000",
]


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("spec", ARRIVALS)
@given(n=st.integers(0, 400), seed=st.integers(0, 2**32))
def test_arrivals_start_at_zero_and_never_fall(spec: str, n: int, seed: int) -> None:
    times = parse_arrivals(spec).times(n, rng(seed))
    assert times.shape == (n,)
    assert np.isfinite(times).all()
    assert (times[:1] == 0).all()
    assert (np.diff(times) >= 0).all()
    assert np.array_equal(times, parse_arrivals(spec).times(n, rng(seed)))


FIELDS = {
    "deterministic": ("rate",),
    "poisson": ("rate",),
    "gamma": ("rate", "cv"),
    "weibull": ("rate", "cv"),
    "drifting": ("rate", "cv", "lag1", "period"),
    "onoff": ("rate", "off_mu", "off_sigma", "off_min", "on_mu", "on_sigma", "gap_shape"),
}


@pytest.mark.parametrize("name", FIELDS)
@given(data=st.data())
def test_any_parameters_are_refused_or_give_times(name: str, data: st.DataObject) -> None:
    numbers = st.floats() | st.floats(1e-9, 1e9) | st.floats(0.01, 10)
    given_fields = data.draw(st.dictionaries(st.sampled_from(FIELDS[name]), numbers))
    given_fields.setdefault("rate", 1.0)
    spec = f"{name}:" + ",".join(f"{key}={value}" for key, value in given_fields.items())
    try:
        times = parse_arrivals(spec).times(20, rng())
    except ConfigError:
        return
    assert times[0] == 0
    assert np.isfinite(times).all()
    assert (np.diff(times) >= 0).all()


@pytest.mark.parametrize("spec", ["poisson:rate=5", "gamma:rate=5,cv=3", "weibull:rate=5,cv=0.4"])
def test_renewal_gaps_have_the_mean_and_cv_asked_for(spec: str) -> None:
    n = 200_000
    process = parse_arrivals(spec)
    gaps = np.diff(process.times(n + 1, rng()))
    cv = getattr(process, "cv", 1.0)
    assert abs(gaps.mean() - 0.2) < 5 * 0.2 * cv / math.sqrt(n)
    # The standard error of a variance is sqrt((kurtosis - 1) / n) times it.
    kurtosis = float(np.mean(((gaps - gaps.mean()) / gaps.std()) ** 4))
    assert gaps.var() == pytest.approx((0.2 * cv) ** 2, rel=5 * math.sqrt(kurtosis / n))


@pytest.mark.parametrize("cv", [0.3, 1.0, 4.0])
def test_gamma_and_weibull_gaps_follow_their_law(cv: float) -> None:
    from scipy import stats

    n = 20_000
    gamma = np.sort(np.diff(Gamma(2.0, cv).times(n + 1, rng(1))))
    # Gaps below the resolution of the times (1e-9 is far above it) come out as 0 at a high CV.
    below = np.searchsorted(gamma, gamma, side="right") / n
    distance = np.abs(below - stats.gamma(cv**-2, scale=cv**2 / 2).cdf(gamma))[gamma > 1e-9]
    assert distance.max() < 1.95 / math.sqrt(n)  # Kolmogorov's bound at p 0.001
    unit = stats.weibull_min(weibull_shape(cv))
    assert unit.std() / unit.mean() == pytest.approx(cv, rel=1e-9)
    weibull = np.diff(Weibull(2.0, cv).times(n + 1, rng(2)))
    assert stats.kstest(weibull * 2 * unit.mean(), unit.cdf).pvalue > 0.001


def test_drifting_rate_has_the_dispersion_of_its_rate_process() -> None:
    process = Drifting(rate=5.0, cv=0.22, lag1=0.85)
    times = process.times(2_000_000, rng(3))
    counts = np.bincount((times // 60).astype(np.int64))[:-1]
    # Counts of a mixed Poisson process: the rate's variance on top of the mean.
    dispersion = counts.var() / counts.mean()
    assert dispersion == pytest.approx(1 + 300 * 0.22**2, rel=0.15)
    lag = np.corrcoef(counts[:-1], counts[1:])[0, 1] * dispersion / (dispersion - 1)
    assert lag == pytest.approx(0.85, abs=0.04)
    assert len(times) / times[-1] == pytest.approx(5.0, rel=0.05)


def test_drifting_rate_is_poisson_once_time_is_measured_in_expected_arrivals() -> None:
    from scipy import stats

    gaps = np.diff(Drifting(rate=5.0, cv=1e-6).times(20_000, rng(4)))
    assert stats.kstest(gaps, stats.expon(scale=0.2).cdf).pvalue > 0.001


def test_on_off_rate_is_the_share_of_busy_time() -> None:
    from scipy import stats

    process = OnOff()
    silence = stats.lognorm(0.988, scale=math.exp(3.275))
    mean_silence = silence.expect(lb=5.0, conditional=True)
    mean_busy = math.exp(2.61 + 0.72**2 / 2)
    share = mean_busy / (mean_busy + mean_silence)
    assert process.own_rate() == pytest.approx(share / (0.353 * 0.3136), rel=1e-6)
    times = process.times(2_000_000, rng(5))
    assert len(times) / times[-1] == pytest.approx(process.own_rate(), rel=0.02)
    gaps = np.diff(times)
    # A gap runs on through a silence, now and then through two: a little longer than one.
    assert gaps[gaps > 5.0].mean() == pytest.approx(mean_silence, rel=0.03)
    scaled = OnOff(rate=10.0).times(1000, rng(5))
    assert np.allclose(scaled * 10.0, OnOff().times(1000, rng(5)) * process.own_rate())


@pytest.mark.parametrize("spec", LAWS)
@given(seed=st.integers(0, 2**32), n=st.integers(0, 200))
def test_lengths_are_whole_and_in_bounds(spec: str, seed: int, n: int) -> None:
    law = parse_law(spec, "prompt")
    drawn = law.sample(n, rng(seed))
    assert drawn.dtype == np.int32
    assert drawn.shape == (n,)
    low, high = law.quantile(np.array([0.0, 1.0]))
    assert low >= max(1, getattr(law, "low", 1))
    assert high <= getattr(law, "high", 1 << 30)
    assert ((drawn >= low) & (drawn <= high)).all()


@pytest.mark.parametrize("spec", LAWS)
@given(u=st.lists(st.floats(0, 1), min_size=1, max_size=30).map(sorted))
def test_quantiles_rise(spec: str, u: list[float]) -> None:
    assert (np.diff(parse_law(spec, "prompt").quantile(np.array(u))) >= 0).all()


@pytest.mark.parametrize(
    ("spec", "mean"),
    [
        ("uniform:low=3,high=90", 46.5),
        ("exponential:mean=128", 128.0),
        ("lognormal:mu=5,sigma=0.5", math.exp(5.125)),
        (
            "mixture:weight=0.3,mu1=3,sigma1=0.5,mu2=6,sigma2=0.5",
            0.3 * math.exp(3.125) + 0.7 * math.exp(6.125),
        ),
    ],
)
def test_lengths_have_the_mean_of_their_law(spec: str, mean: float) -> None:
    drawn = parse_law(spec, "output").sample(200_000, rng(6))
    assert drawn.mean() == pytest.approx(mean, abs=5 * drawn.std() / math.sqrt(len(drawn)) + 0.01)


def test_uniform_gives_every_length_alike() -> None:
    counts = np.bincount(parse_law("uniform:low=3,high=12", "prompt").sample(100_000, rng(7)))[3:]
    assert len(counts) == 10
    assert float(((counts - 10_000) ** 2 / 10_000).sum()) < 27.9  # χ², 9 degrees, p 0.001


def test_zipf_has_its_exponent() -> None:
    law = parse_law("zipf:exponent=1.5,low=1,high=50", "prompt")
    counts = np.bincount(law.sample(400_000, rng(8)), minlength=51)[1:]
    weights = np.arange(1, 51) ** -1.5
    expected = 400_000 * weights / weights.sum()
    assert float(((counts - expected) ** 2 / expected).sum()) < 85.4  # χ², 49 degrees, p 0.001


def test_clipping_piles_up_at_the_cap_and_redrawing_does_not() -> None:
    clipped = Exponential(128.0, high=128).sample(100_000, rng(9))
    redrawn = Exponential(128.0, high=128, over="redraw").sample(100_000, rng(9))
    assert (clipped == 128).mean() == pytest.approx(math.exp(-127.5 / 128), abs=0.01)
    assert (redrawn == 128).mean() < 0.01
    assert redrawn.max() == 128


@pytest.mark.parametrize("rho", [-1.0, -0.6, 0.0, 0.07, 0.8, 1.0])
def test_rank_correlation_is_the_one_asked_for(rho: float) -> None:
    from scipy import stats

    law = LognormalMixture(((1.0, 8.0, 1.0),))
    prompt, output = sample_pair(law, law, rho, 40_000, rng(10))
    measured = stats.spearmanr(prompt, output).statistic
    assert measured == pytest.approx(rho, abs=5 / math.sqrt(40_000))


def test_correlation_leaves_the_marginals_alone() -> None:
    from scipy import stats

    law = LognormalMixture(((0.4, 5.0, 1.0), (0.6, 7.0, 0.3)))
    prompt, output = sample_pair(law, law, 0.9, 20_000, rng(11))
    alone = law.sample(20_000, rng(12))
    assert stats.ks_2samp(prompt, alone).pvalue > 0.001
    assert stats.ks_2samp(output, alone).pvalue > 0.001


@given(
    seed=st.integers(0, 2**32), n=st.integers(1, 300), spec=st.sampled_from(["5", "zipf:3", "1"])
)
def test_tenants_arrive_in_order_and_are_known(seed: int, n: int, spec: str) -> None:
    mix = parse_tenants(spec)
    times, tenant = mix.arrivals(n, 4.0, rng(seed))
    assert len(times) == len(tenant) == n
    assert times[0] == 0
    assert (np.diff(times) >= 0).all()
    assert ((tenant >= 0) & (tenant < mix.clients)).all()


def test_more_tenant_arrivals_begin_with_the_same_ones() -> None:
    mix = parse_tenants("20")
    few, many = mix.arrivals(500, 4.0, rng(13)), mix.arrivals(5000, 4.0, rng(13))
    assert np.array_equal(few.times, many.times[:500])
    assert np.array_equal(few.tenant, many.tenant[:500])


def test_tenants_are_stationary_from_the_start() -> None:
    # 2,000 clients of one request a second: as many in the first second as in any other.
    mix = parse_tenants("zipf:2000,exponent=0,cv_median=3,cv_p95=3")
    times, _ = mix.arrivals(20_000, 2000.0, rng(20))
    first, second = np.bincount(times.astype(np.int64))[:2]
    # A count's variance is at most cv² times its mean.
    assert first == pytest.approx(2000, abs=5 * math.sqrt(9 * 2000))
    assert second == pytest.approx(2000, abs=5 * math.sqrt(9 * 2000))


def test_one_tenant_has_the_cv_of_its_mix() -> None:
    mix = parse_tenants("1,cv_median=2,cv_p95=2")
    gaps = np.diff(mix.arrivals(100_000, 5.0, rng(21)).times)
    assert gaps.mean() == pytest.approx(0.2, rel=5 * 2 / math.sqrt(100_000))
    assert gaps.std() / gaps.mean() == pytest.approx(2.0, rel=0.03)


def test_tenant_shares_and_rate_are_those_of_the_mix() -> None:
    mix = parse_tenants("zipf:4,exponent=1,cv_median=1,cv_p95=1,cv_low=1,cv_high=1")
    n = 100_000
    times, tenant = mix.arrivals(n, 8.0, rng(14))
    shares = np.array([12, 6, 4, 3]) / 25
    assert np.bincount(tenant) / n == pytest.approx(shares, abs=5 * 0.5 / math.sqrt(n))
    # Every client is Poisson, so the superposition is.
    assert n / times[-1] == pytest.approx(8.0, rel=5 / math.sqrt(n))
    assert np.diff(times).std() * 8.0 == pytest.approx(1.0, rel=0.02)


@given(
    seed=st.integers(0, 2**32),
    n=st.integers(1, 120),
    turns=st.floats(1, 20),
    system=st.integers(0, 100),
    size=st.integers(1, 40),
    context=st.integers(300, 3000),
    per_tenant=st.booleans(),
)
def test_turns_extend_the_turn_before_and_share_its_blocks(
    seed: int, n: int, turns: float, system: int, size: int, context: int, per_tenant: bool
) -> None:
    model = SessionModel(
        turns=turns,
        system_tokens=system,
        system="tenant" if per_tenant else "all",
        max_context=context,
        block_size=size,
    )
    law = parse_law("uniform:low=1,high=150", "prompt")
    trace = Workload(Poisson(2.0), law, law, 0.1, parse_tenants("3"), model).generate(n, seed)
    assert len(trace) == n
    assert trace.blocks is not None
    assert trace.parent is not None
    assert trace.session is not None
    assert trace.tenant is not None
    assert (trace.prompt_tokens + trace.output_tokens <= context).all()
    chains = [
        trace.blocks.ids[start:end].tolist()
        for start, end in zip(trace.blocks.offsets, trace.blocks.offsets[1:], strict=False)
    ]
    for row, parent in enumerate(trace.parent.tolist()):
        assert len(chains[row]) == trace.prompt_tokens[row] // size
        if parent >= 0:
            assert trace.session[row] == trace.session[parent]
            assert trace.arrival[row] > trace.arrival[parent]
            before = int(trace.prompt_tokens[parent] + trace.output_tokens[parent])
            assert trace.prompt_tokens[row] > before
            assert chains[row][: len(chains[parent])] == chains[parent]
    owner: dict[int, tuple[int, int]] = {}
    for row, chain in enumerate(chains):
        for position, block in enumerate(chain):
            shared = position < system // size
            tenant = int(trace.tenant[row]) if per_tenant else 0
            who = (-1 - tenant, position) if shared else (int(trace.session[row]), position)
            assert owner.setdefault(block, who) == who


def test_number_of_turns_is_geometric() -> None:
    law = Fixed(3)
    model = SessionModel(turns=4.0, max_context=1 << 20)
    trace = Workload(Poisson(2.0), law, law, sessions=model).generate(100_000, 15)
    assert trace.session is not None
    turns = np.bincount(trace.session)[:-1]
    assert turns.mean() == pytest.approx(4.0, abs=5 * math.sqrt(12 / len(turns)))
    assert (turns == 1).mean() == pytest.approx(0.25, abs=5 * 0.5 / math.sqrt(len(turns)))


def test_another_arrival_process_leaves_the_lengths_alone() -> None:
    law = parse_law("lognormal:mu=5,sigma=1", "prompt")
    one = Workload(Poisson(2.0), law, law, 0.1).generate(200, 16)
    other = Workload(Burst(), law, law, 0.1).generate(200, 16)
    assert np.array_equal(one.prompt_tokens, other.prompt_tokens)
    assert np.array_equal(one.output_tokens, other.output_tokens)
    assert not np.array_equal(one.arrival, other.arrival)


def test_a_rate_rescales_and_turns_a_burst_into_poisson() -> None:
    assert with_rate(Gamma(2.0, 3.0), 5.0) == Gamma(5.0, 3.0)
    assert with_rate(Burst(), 5.0) == Poisson(5.0)
    assert mean_rate(with_rate(OnOff(), 5.0)) == 5.0


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("poison:rate=5", "poisson"),
        ("poisson:rate=0", "rate > 0"),
        ("poisson:rate=-2", "rate > 0"),
        ("poisson:rate=nan", "rate > 0"),
        ("poisson:speed=3", "rate"),
        ("poisson", "rate"),
        ("gamma:rate=1,cv=0", "cv > 0"),
        ("weibull:rate=1,cv=0.0001", "cv"),
        ("drifting:rate=1,lag1=1", "lag1"),
        ("onoff:off_min=-1", "off_min"),
        ("onoff:rate=inf", "rate > 0"),
    ],
)
def test_bad_arrivals_say_what_is_wrong(spec: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_arrivals(spec)


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("fixd:3", "fixed"),
        ("fixed:0", "tokens"),
        ("fixed:x", "whole number"),
        ("uniform:low=9,high=3", "low <= high"),
        ("exponential:mean=0", "mean > 0"),
        ("lognormal:mu=5", "sigma"),
        ("lognormal:mu=inf,sigma=1", "mu"),
        ("mixture:weight=2,mu1=1,sigma1=1,mu2=1,sigma2=1", "weight"),
        ("zipf:exponent=-1", "exponent"),
        ("exponential:mean=3,over=wrap", "clip"),
        ("uniform:high=99999999", "high"),
    ],
)
def test_bad_laws_say_what_is_wrong(spec: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        parse_law(spec, "prompt")


@pytest.mark.parametrize(
    "spec", ["0", "pareto:3", "zipf:3,exponent=-1", "3,sigma=-1", "3,cv_p95=1"]
)
def test_bad_tenants_are_refused(spec: str) -> None:
    with pytest.raises(ConfigError):
        parse_tenants(spec)


@pytest.mark.parametrize("spec", ["0", "turns=0.5", "turns=2,system=one", "uniform:3", "x"])
def test_bad_sessions_are_refused(spec: str) -> None:
    with pytest.raises(ConfigError):
        parse_sessions(spec)


def test_sessions_by_tenant_need_tenants() -> None:
    with pytest.raises(ConfigError, match="tenants"):
        Workload(Poisson(1.0), Fixed(1), Fixed(1), sessions=SessionModel(system="tenant"))
