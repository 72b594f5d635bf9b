"""Arrival processes: when requests come. Each gives the first n arrival times, from 0.

All randomness is from the generator passed in. The rate is the long-run mean in requests per
second; times are in seconds.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from schedsim.errors import ConfigError
from schedsim.specs import build_from_spec, parse_spec, unknown_name
from schedsim.traces.generators.normal import normal_cdf, normal_quantile
from schedsim.traces.trace import Trace
from schedsim.traces.transforms import session_count, with_arrivals, with_session_starts

Floats = npt.NDArray[np.float64]

MOST_PERIODS = 1_000_000


class ArrivalProcess(Protocol):
    """A point process; frozen, so that one object may serve many runs."""

    def times(self, n: int, rng: np.random.Generator) -> Floats:
        """The first n arrival times in seconds: non-decreasing, the first one 0."""
        ...


@dataclass(frozen=True, slots=True)
class Deterministic:
    """One arrival every 1/rate seconds."""

    rate: float

    def __post_init__(self) -> None:
        check_positive("deterministic arrivals", rate=self.rate)

    def times(self, n: int, rng: np.random.Generator) -> Floats:
        return np.arange(n, dtype=np.float64) / self.rate


@dataclass(frozen=True, slots=True)
class Poisson:
    """Exponential gaps of mean 1/rate."""

    rate: float

    def __post_init__(self) -> None:
        check_positive("poisson arrivals", rate=self.rate)

    def times(self, n: int, rng: np.random.Generator) -> Floats:
        return _from_gaps(rng.standard_exponential(max(n - 1, 0)) / self.rate, n)


@dataclass(frozen=True, slots=True)
class Gamma:
    """Gamma gaps with coefficient of variation cv (shape 1/cv²): 1 is Poisson, above it bursty."""

    rate: float
    cv: float = 1.0

    def __post_init__(self) -> None:
        check_positive("gamma arrivals", rate=self.rate, cv=self.cv)

    def times(self, n: int, rng: np.random.Generator) -> Floats:
        scale = self.cv**2 / self.rate
        return _from_gaps(rng.standard_gamma(self.cv**-2, max(n - 1, 0)) * scale, n)


@dataclass(frozen=True, slots=True)
class Weibull:
    """Weibull gaps with coefficient of variation cv; a heavier tail than Gamma's above cv 1."""

    rate: float
    cv: float = 1.0

    def __post_init__(self) -> None:
        check_positive("weibull arrivals", rate=self.rate, cv=self.cv)
        weibull_shape(self.cv)

    def times(self, n: int, rng: np.random.Generator) -> Floats:
        shape = weibull_shape(self.cv)
        scale = 1.0 / (self.rate * math.gamma(1.0 + 1.0 / shape))
        return _from_gaps(rng.weibull(shape, max(n - 1, 0)) * scale, n)


@dataclass(frozen=True, slots=True)
class OnOff:
    """Silences between busy periods, with Gamma gaps inside those: code completion's traffic.

    The defaults are fitted to the Azure code trace of 2023: silences lognormal and longer than
    `off_min` seconds, busy periods lognormal, gaps Gamma. The gaps run on a clock that stands still
    in silences, so the mean rate is exactly E[on]/(E[on] + E[off]) / (shape·scale), 2.54 per second
    with the defaults; a `rate` stretches all times alike to get that mean.
    """

    rate: float | None = None
    off_mu: float = 3.275
    off_sigma: float = 0.988
    off_min: float = 5.0
    on_mu: float = 2.61
    on_sigma: float = 0.72
    gap_shape: float = 0.353
    gap_scale: float = 0.3136

    def __post_init__(self) -> None:
        check_positive(
            "onoff arrivals",
            off_sigma=self.off_sigma,
            on_sigma=self.on_sigma,
            gap_shape=self.gap_shape,
            gap_scale=self.gap_scale,
        )
        if self.rate is not None:
            check_positive("onoff arrivals", rate=self.rate)
        if not 0 <= self.off_min <= 1e9:
            raise ConfigError(f"onoff arrivals need off_min >= 0 (to 1e9), got {self.off_min}")
        for name, mu, sigma in (
            ("on", self.on_mu, self.on_sigma),
            ("off", self.off_mu, self.off_sigma),
        ):
            if not (abs(mu) <= 20 and sigma <= 10):
                raise ConfigError(
                    f"onoff arrivals need {name}_mu from -20 to 20 and {name}_sigma up to 10, "
                    f"got {mu} and {sigma}"
                )
        if self.off_min > 0 and math.log(self.off_min) > self.off_mu + 8 * self.off_sigma:
            raise ConfigError(
                f"onoff arrivals: silences are never longer than off_min={self.off_min}; lower it"
            )

    def own_rate(self) -> float:
        """The mean rate before `rate` stretches time, in requests per second."""
        on = math.exp(self.on_mu + self.on_sigma**2 / 2)
        off = math.exp(self.off_mu + self.off_sigma**2 / 2)
        if self.off_min > 0:  # mean of a lognormal given that it is above off_min
            z = (self.off_mu - math.log(self.off_min)) / self.off_sigma
            above, weighted = normal_cdf(np.array([z, z + self.off_sigma]))
            off *= float(weighted / above)
        return on / (on + off) / (self.gap_shape * self.gap_scale)

    def times(self, n: int, rng: np.random.Generator) -> Floats:
        gaps = rng.standard_gamma(self.gap_shape, max(n - 1, 0)) * self.gap_scale
        busy_time = _from_gaps(gaps, n)
        on_mean = math.exp(self.on_mu + self.on_sigma**2 / 2)
        _check_periods("onoff arrivals", float(gaps.sum()), on_mean, "raise on_mu")
        on_ends = np.empty(0)
        while not len(on_ends) or on_ends[-1] <= busy_time[-1:].max(initial=0.0):
            start = on_ends[-1] if len(on_ends) else 0.0
            draws = max(64, len(on_ends))
            more = np.cumsum(rng.lognormal(self.on_mu, self.on_sigma, draws))
            on_ends = np.concatenate((on_ends, start + more))
        silences = np.searchsorted(on_ends, busy_time, side="right")
        off = np.concatenate(([0.0], np.cumsum(self._silences(int(silences.max(initial=0)), rng))))
        times = busy_time + off[silences]
        return times if self.rate is None else times * (self.own_rate() / self.rate)

    def _silences(self, count: int, rng: np.random.Generator) -> Floats:
        """`count` draws of the lognormal above off_min, by inversion: one uniform each."""
        below = 0.0
        if self.off_min > 0:
            z = (math.log(self.off_min) - self.off_mu) / self.off_sigma
            below = float(normal_cdf(np.array([z]))[0])
        u = below + (1.0 - below) * rng.random(count)
        inner = np.clip(u, 2.0**-60, 1.0 - 2.0**-53).tolist()
        z_scores = np.fromiter(map(normal_quantile, inner), np.float64, count)
        return np.maximum(np.exp(self.off_mu + self.off_sigma * z_scores), self.off_min)


@dataclass(frozen=True, slots=True)
class Drifting:
    """Poisson with a rate that drifts: constant over each `period`, a lognormal AR(1) across them.

    `cv` is the rate's coefficient of variation and `lag1` the correlation of neighbouring periods'
    rates. The defaults are those of the Azure conversation trace. Exact, by change of time.
    """

    rate: float
    cv: float = 0.22
    lag1: float = 0.85
    period: float = 60.0

    def __post_init__(self) -> None:
        check_positive("drifting arrivals", rate=self.rate, cv=self.cv, period=self.period)
        if self.cv > 100:
            raise ConfigError(f"drifting arrivals need cv <= 100, got {self.cv}")
        if not 0.0 <= self.lag1 < 1.0:
            raise ConfigError(f"drifting arrivals need 0 <= lag1 < 1, got {self.lag1}")

    def times(self, n: int, rng: np.random.Generator) -> Floats:
        expected = _from_gaps(rng.standard_exponential(max(n - 1, 0)), n)
        last = float(expected[-1]) if n else 0.0
        _check_periods("drifting arrivals", last / self.rate, self.period, "raise rate or period")
        variance = math.log1p(self.cv**2)
        log_rate = math.sqrt(variance) * float(rng.standard_normal())
        # Correlation of the logarithms that gives lag1 between the rates themselves.
        memory = math.log1p(self.lag1 * self.cv**2) / variance
        noise = math.sqrt(variance * (1.0 - memory**2))
        passed = [0.0]  # expected arrivals up to the end of each period
        while passed[-1] <= last:
            for step in rng.standard_normal(256).tolist():
                rate = self.rate * math.exp(log_rate - variance / 2)
                passed.append(passed[-1] + rate * self.period)
                log_rate = memory * log_rate + noise * step
        ends = np.arange(len(passed), dtype=np.float64) * self.period
        return np.interp(expected, np.asarray(passed), ends)


@dataclass(frozen=True, slots=True)
class Burst:
    """Everything at time 0."""

    def times(self, n: int, rng: np.random.Generator) -> Floats:
        return np.zeros(n)


PROCESSES: dict[str, Callable[..., ArrivalProcess]] = {
    "deterministic": Deterministic,
    "poisson": Poisson,
    "gamma": Gamma,
    "weibull": Weibull,
    "onoff": OnOff,
    "drifting": Drifting,
    "burst": Burst,
}


def parse_arrivals(text: str) -> ArrivalProcess:
    """An arrival process from its spec, as in `--arrivals gamma:rate=5,cv=2`.

    Raises:
        ConfigError: an unknown process or parameter, or a rate that is not above 0.
    """
    spec = parse_spec(text)
    if spec.name not in PROCESSES:
        raise unknown_name("arrival process", spec.name, PROCESSES)
    return build_from_spec("arrival process", PROCESSES[spec.name], spec)


def with_process(trace: Trace, process: ArrivalProcess, rng: np.random.Generator) -> Trace:
    """`trace` with arrivals from `process`, or with new session starts where it is closed loop."""
    if trace.parent is not None and (trace.parent >= 0).any():
        return with_session_starts(trace, process.times(session_count(trace), rng))
    return with_arrivals(trace, process.times(len(trace), rng))


def weibull_shape(cv: float) -> float:
    """The shape whose coefficient of variation is cv: Γ(1 + 2/c) / Γ(1 + 1/c)² = 1 + cv².

    Raises:
        ConfigError: cv is beyond what a shape from 0.05 to 1000 gives.
    """
    target = math.log1p(cv**2)

    def excess(shape: float) -> float:
        return math.lgamma(1.0 + 2.0 / shape) - 2.0 * math.lgamma(1.0 + 1.0 / shape) - target

    low, high = 0.05, 1000.0
    if excess(low) < 0 or excess(high) > 0:
        raise ConfigError(f"weibull arrivals cannot have cv={cv}; use 0.002 to 100000")
    for _ in range(200):  # bisection to the last bit; excess falls as the shape grows
        middle = math.sqrt(low * high)
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return math.sqrt(low * high)


def check_positive(owner: str, **values: float) -> None:
    """Raises ConfigError naming the first value that is not from 1e-9 to 1e9."""
    for name, value in values.items():
        if not 1e-9 <= value <= 1e9:
            raise ConfigError(f"{owner} need {name} > 0 (1e-9 to 1e9), got {value}")


def _check_periods(owner: str, span: float, period: float, remedy: str) -> None:
    if span > MOST_PERIODS * period:
        raise ConfigError(f"{owner} would need {span / period:.3g} periods; {remedy}")


def _from_gaps(gaps: Floats, n: int) -> Floats:
    times = np.zeros(n)
    np.cumsum(gaps, out=times[1:])
    return times
