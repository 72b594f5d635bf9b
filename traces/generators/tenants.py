"""Tenants: many clients with unequal rates and burstiness of their own, arriving together.

The total is the superposition of one Gamma stream a client. Neither of two known flaws of such
samplers is here: lengths are drawn apart from arrivals, and no window is stretched to a count.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schedsim.errors import ConfigError
from schedsim.specs import build_from_spec, parse_spec, unknown_name
from schedsim.traces.generators.arrivals import check_positive

Floats = npt.NDArray[np.float64]
MOST_CLIENTS = 100_000
CHUNK = 256


class TenantArrivals(NamedTuple):
    """Arrival times in seconds, from 0 and in order, and the client each belongs to."""

    times: Floats
    tenant: npt.NDArray[np.int64]


@dataclass(frozen=True)
class ClientMix(ABC):
    """N clients whose gaps are Gamma with a CV of the client's own.

    The CVs are lognormal with median `cv_median` and 95th percentile `cv_p95`, clipped to
    [cv_low, cv_high]; the defaults are those of production pools of clients.
    """

    clients: int
    _: KW_ONLY
    cv_median: float = 1.2
    cv_p95: float = 10.0
    cv_low: float = 0.5
    cv_high: float = 20.0

    def __post_init__(self) -> None:
        if not 1 <= self.clients <= MOST_CLIENTS:
            raise ConfigError(f"tenants need 1 <= clients <= {MOST_CLIENTS}, got {self.clients}")
        check_positive("tenants", cv_median=self.cv_median, cv_p95=self.cv_p95)
        check_positive("tenants", cv_low=self.cv_low, cv_high=self.cv_high)
        if self.cv_median > self.cv_p95 or self.cv_low > self.cv_high:
            raise ConfigError(
                f"tenants need cv_median <= cv_p95 and cv_low <= cv_high, got {self.cv_median}, "
                f"{self.cv_p95}, {self.cv_low}, {self.cv_high}"
            )

    @abstractmethod
    def shares(self, rng: np.random.Generator) -> Floats:
        """Each client's share of the rate; they add up to 1, the largest first."""

    def coefficients(self, rng: np.random.Generator) -> Floats:
        """Each client's coefficient of variation."""
        sigma = math.log(self.cv_p95 / self.cv_median) / 1.6448536269514722  # Φ⁻¹(0.95)
        drawn = rng.lognormal(math.log(self.cv_median), sigma, self.clients)
        return np.clip(drawn, self.cv_low, self.cv_high)

    def arrivals(self, n: int, rate: float, rng: np.random.Generator) -> TenantArrivals:
        """The first n arrivals of all clients together, at `rate` requests per second in the mean.

        Each stream starts in its stationary state, so that the clients do not start in step.
        """
        check_positive("tenants", rate=rate)
        settings, *client_rngs = rng.spawn(1 + self.clients)
        rates = rate * self.shares(settings)
        coefficients = self.coefficients(settings)
        streams = [
            _GammaStream(float(client_rate), float(cv), client_rng)
            for client_rate, cv, client_rng in zip(rates, coefficients, client_rngs, strict=True)
        ]
        horizon = 1.1 * (n + 10) / rate
        parts = [stream.until(horizon) for stream in streams]
        while sum(map(len, parts)) < n:
            horizon *= 1.5
            parts = [stream.until(horizon) for stream in streams]
        times = np.concatenate(parts)
        tenant = np.repeat(np.arange(self.clients, dtype=np.int64), [len(part) for part in parts])
        order = np.argsort(times, kind="stable")[:n]  # ties go to the lower client
        times = times[order]
        return TenantArrivals(times - times[:1], tenant[order])


@dataclass(frozen=True)
class LognormalClients(ClientMix):
    """Client rates drawn from a lognormal with this sigma."""

    sigma: float = 2.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.sigma <= 5:
            raise ConfigError(f"tenants need sigma from 0 to 5, got {self.sigma}")

    def shares(self, rng: np.random.Generator) -> Floats:
        weights = np.sort(rng.lognormal(0.0, self.sigma, self.clients))[::-1]
        return np.asarray(weights / weights.sum())


@dataclass(frozen=True)
class ZipfClients(ClientMix):
    """The k-th client's rate is proportional to k^-exponent."""

    exponent: float = 1.3

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.exponent <= 10:
            raise ConfigError(f"tenants need exponent from 0 to 10, got {self.exponent}")

    def shares(self, rng: np.random.Generator) -> Floats:
        weights = np.arange(1, self.clients + 1, dtype=np.float64) ** -self.exponent
        return np.asarray(weights / weights.sum())


MIXES: dict[str, type[ClientMix]] = {"lognormal": LognormalClients, "zipf": ZipfClients}


def parse_tenants(text: str) -> ClientMix:
    """A mix from `20` (clients, lognormal), `lognormal:clients=20,sigma=2` or `zipf:20`.

    Raises:
        ConfigError: an unknown mix or parameter, or a value out of range.
    """
    counts_clients = text.partition(",")[0].strip().isdigit()
    spec = parse_spec(f"lognormal:{text}" if counts_clients else text)
    if spec.name not in MIXES:
        raise unknown_name("tenant mix", spec.name, MIXES)
    return build_from_spec("tenant mix", MIXES[spec.name], spec)


class _GammaStream:
    """One client's arrivals, drawn chunk by chunk: the same however far each call reaches."""

    def __init__(self, rate: float, cv: float, rng: np.random.Generator) -> None:
        self._shape = cv**-2
        self._scale = cv**2 / rate
        self._rng = rng
        # Length-biased gap times a uniform: the time to the first arrival in the stationary state.
        first = rng.random() * rng.standard_gamma(self._shape + 1.0) * self._scale
        self._chunks = [np.array([first])]
        self._last = first

    def until(self, horizon: float) -> Floats:
        while self._last <= horizon:
            gaps = self._rng.standard_gamma(self._shape, CHUNK) * self._scale
            gaps[0] += self._last
            chunk = np.cumsum(gaps)
            self._chunks.append(chunk)
            self._last = float(chunk[-1])
        times = np.concatenate(self._chunks)
        return times[: np.searchsorted(times, horizon, side="right")]
