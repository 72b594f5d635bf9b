"""Predictors of output length: the one way in which a policy may learn about a true length.

What each of them models, and how far: docs/predictors.md.
"""

import math
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import ClassVar

import numpy as np

from schedsim.errors import ConfigError
from schedsim.request import Request
from schedsim.specs import build_from_spec, parse_spec, unknown_name
from schedsim.traces.trace import FloatColumn, TokenColumn

_NORMAL = NormalDist()


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictor(ABC):
    """Writes `predicted_output` on a request when it is handed to the scheduler.

    That is `latency` seconds after its arrival: the predictor stands before the waiting line, as a
    proxy model does, and nobody is admitted without having passed it.
    """

    name: ClassVar[str]
    learns: ClassVar[bool] = False
    """Whether it is told who finished, and after how many tokens (`observe`)."""

    latency: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.latency < math.inf:
            raise ConfigError(
                f"predictor {self.name!r}: latency={self.latency} must be finite and not negative"
            )

    @abstractmethod
    def predict(self, request: Request, output_tokens: int) -> float | None:
        """The predicted output of `request` in tokens, whose true output is `output_tokens`."""

    def observe(self, request: Request, output_tokens: int) -> None:  # noqa: B027 (few learn)
        """`request` finished with `output_tokens`; called in order of finishing."""


@dataclass(frozen=True, slots=True)
class TraceColumn(Predictor):
    """`none`, `column`: no prediction but what the trace's own column holds, if it has one."""

    name: ClassVar[str] = "column"

    def predict(self, request: Request, output_tokens: int) -> float | None:
        """What the trace says."""
        return request.predicted_output


@dataclass(frozen=True, slots=True)
class Oracle(Predictor):
    """`oracle`: the true length."""

    name: ClassVar[str] = "oracle"

    def predict(self, request: Request, output_tokens: int) -> float | None:
        """The true length."""
        return float(output_tokens)


@dataclass(frozen=True, slots=True)
class LognormalNoise(Predictor):
    """`lognormal`: the true length times exp(sigma·Z), at least 1 token; Z standard normal.

    The median of the prediction is the truth. Draws come in order of arrival.
    """

    name: ClassVar[str] = "lognormal"

    rng: np.random.Generator = field(repr=False)
    sigma: float = 0.5

    def __post_init__(self) -> None:
        Predictor.__post_init__(self)
        if not 0.0 <= self.sigma < 10.0:
            raise ConfigError(f"predictor 'lognormal': sigma={self.sigma} is not in [0, 10)")

    def predict(self, request: Request, output_tokens: int) -> float | None:
        """The noisy length."""
        return max(1.0, output_tokens * float(np.exp(self.sigma * self.rng.standard_normal())))


@dataclass(frozen=True, slots=True)
class RankNoise(Predictor):
    """`rank`: a length of the same run whose rank has Kendall's `tau` with the true one.

    A Gaussian copula over the ranks of `lengths`, the sorted true lengths of the run: correlation
    sin(tau·π/2) gives that tau for any law of lengths. Predictions have the law of the truth. The
    tau is that of lengths whose ties are broken at random. Draws come in order of arrival.
    """

    name: ClassVar[str] = "rank"

    rng: np.random.Generator = field(repr=False)
    lengths: Sequence[int] = field(repr=False)
    tau: float = 0.5

    def __post_init__(self) -> None:
        Predictor.__post_init__(self)
        if not -1.0 <= self.tau <= 1.0:
            raise ConfigError(f"predictor 'rank': tau={self.tau} is not in [-1, 1]")

    def predict(self, request: Request, output_tokens: int) -> float | None:
        """The length at the noisy rank."""
        lengths, count = self.lengths, len(self.lengths)
        first, end = bisect_left(lengths, output_tokens), bisect_right(lengths, output_tokens)
        rank = (first + (end - first) * float(self.rng.random())) / count
        noise = float(self.rng.standard_normal())
        correlation = math.sin(self.tau * math.pi / 2)
        score = correlation * _NORMAL.inv_cdf(min(max(rank, 1e-15), 1.0 - 1e-15))
        score += math.sqrt(1.0 - correlation * correlation) * noise
        return float(lengths[min(int(_NORMAL.cdf(score) * count), count - 1)])


@dataclass(frozen=True, slots=True)
class Bins(Predictor):
    """`bins`: the middle of the right one of `count` bins of equal width up to `longest`.

    With probability 1 - `accuracy` it is the middle of another bin, each as likely. Draws come in
    order of arrival.
    """

    name: ClassVar[str] = "bins"

    rng: np.random.Generator = field(repr=False)
    longest: int
    count: int = 10
    accuracy: float = 1.0

    def __post_init__(self) -> None:
        Predictor.__post_init__(self)
        if self.count < 1:
            raise ConfigError(f"predictor 'bins': count={self.count} is below 1")
        if not 0.0 <= self.accuracy <= 1.0:
            raise ConfigError(f"predictor 'bins': accuracy={self.accuracy} is not in [0, 1]")

    def predict(self, request: Request, output_tokens: int) -> float | None:
        """The middle of a bin, at least 1 token."""
        count = self.count
        number = min((output_tokens - 1) * count // self.longest, count - 1)
        errs = float(self.rng.random()) >= self.accuracy
        other = int(self.rng.integers(1, max(count, 2)))
        if errs and count > 1:
            number = (number + other) % count
        return max(1.0, (number + 0.5) * self.longest / count)


@dataclass(frozen=True, slots=True)
class TenantHistory(Predictor):
    """`history`: the mean output of the last `window` requests of the tenant that finished.

    Of all tenants, while this one has none; no prediction while nobody has finished.
    """

    name: ClassVar[str] = "history"
    learns: ClassVar[bool] = True

    window: int = 100
    _finished: dict[int | None, deque[int]] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        Predictor.__post_init__(self)
        if self.window < 1:
            raise ConfigError(f"predictor 'history': window={self.window} is below 1")

    def predict(self, request: Request, output_tokens: int) -> float | None:
        """The mean of what is known; O(window)."""
        lengths = self._finished.get(request.tenant) or self._finished.get(None)
        return sum(lengths) / len(lengths) if lengths else None

    def observe(self, request: Request, output_tokens: int) -> None:
        """One more length of the tenant, and of all (None)."""
        for tenant in (request.tenant, None):
            self._finished.setdefault(tenant, deque(maxlen=self.window)).append(output_tokens)


def make_predictor(
    text: str,
    rng: np.random.Generator,
    outputs: Sequence[int] | TokenColumn = (),
    predicted: FloatColumn | None = None,
) -> Predictor:
    """Build the predictor named by the spec `text`, as `oracle` or `lognormal,sigma=0.5`.

    `outputs` are the true lengths of the run, whose scale `rank` and `bins` take, `predicted` the
    trace's column.

    Raises:
        ConfigError: an unknown name or parameter, or `column` where a request has no value.
    """
    lengths: list[int] = np.sort(np.asarray(outputs, dtype=np.int64)).tolist()

    def none() -> Predictor:
        return TraceColumn()

    def column(latency: float = 0.0) -> Predictor:
        missing = [0] if predicted is None else np.flatnonzero(np.isnan(predicted))
        if len(missing):
            raise ConfigError(
                f"predictor 'column': request {missing[0]} has no predicted_output in the trace; "
                "add the column, or name another predictor"
            )
        return TraceColumn(latency=latency)

    def lognormal(sigma: float = 0.5, latency: float = 0.0) -> Predictor:
        return LognormalNoise(rng, sigma, latency=latency)

    def rank(tau: float = 0.5, latency: float = 0.0) -> Predictor:
        return RankNoise(rng, lengths, tau, latency=latency)

    def bins(count: int = 10, accuracy: float = 1.0, latency: float = 0.0) -> Predictor:
        return Bins(rng, lengths[-1] if lengths else 1, count, accuracy, latency=latency)

    predictors: dict[str, Callable[..., Predictor]] = {
        "none": none,
        "column": column,
        "oracle": Oracle,
        "lognormal": lognormal,
        "rank": rank,
        "bins": bins,
        "history": TenantHistory,
    }
    spec = parse_spec(text)
    if spec.name not in predictors:
        raise unknown_name("predictor", spec.name, predictors)
    return build_from_spec("predictor", predictors[spec.name], spec)
