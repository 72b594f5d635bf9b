"""Length laws: how many tokens a prompt or an output has, clipped to whole numbers in [low, high].

A law gives its cumulative probability; drawing goes by its inverse, so that two laws can be
correlated in rank. The fitted parameters stand in `presets.py`.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt

from schedsim.errors import ConfigError
from schedsim.specs import Spec, build_from_spec, parse_spec, unknown_name
from schedsim.traces.generators.normal import normal_cdf
from schedsim.traces.trace import Trace

Floats = npt.NDArray[np.float64]
Tokens = npt.NDArray[np.int32]

DEFAULT_HIGH = 131_072
LARGEST_HIGH = 1 << 22  # a law tabulates its probabilities: 32 MiB at this length


class LengthLaw(Protocol):
    """A distribution of token counts, all at least 1."""

    def quantile(self, u: Floats) -> Tokens:
        """The length below or at which the law has probability u, for each u in [0, 1]."""
        ...

    def sample(self, n: int, rng: np.random.Generator) -> Tokens:
        """n independent lengths."""
        ...


@dataclass(frozen=True)
class BoundedLaw(ABC):
    """A law given by `cdf`, rounded to whole tokens and kept in [low, high].

    Below `low` counts as `low`. Above `high`, `over="clip"` counts as `high` and `over="redraw"`
    draws again, which leaves no spike at the cap.

    Raises:
        ConfigError: low below 1, high below low, or high above 4,194,304.
    """

    _: KW_ONLY
    low: int = 1
    high: int = DEFAULT_HIGH
    over: Literal["clip", "redraw"] = "clip"

    def __post_init__(self) -> None:
        if not 1 <= self.low <= self.high <= LARGEST_HIGH:
            raise ConfigError(
                f"lengths need 1 <= low <= high <= {LARGEST_HIGH}, got low={self.low}, "
                f"high={self.high}"
            )

    @abstractmethod
    def cdf(self, tokens: Floats) -> Floats:
        """The probability of a length up to `tokens`, before rounding and bounds."""

    def quantile(self, u: Floats) -> Tokens:
        """The inverse of the rounded and bounded law; O(high - low) to tabulate it."""
        edges = np.arange(self.low, self.high, dtype=np.float64) + 0.5
        table = np.maximum.accumulate(self.cdf(edges))
        if self.over == "redraw":
            within = float(self.cdf(np.array([self.high + 0.5]))[0])
            if within <= 0.0:
                raise ConfigError(
                    f"{type(self).__name__.lower()} has no probability up to high={self.high}"
                )
            table = table / within
        return np.asarray(self.low + np.searchsorted(table, u, side="left"), dtype=np.int32)

    def sample(self, n: int, rng: np.random.Generator) -> Tokens:
        return self.quantile(rng.random(n))


@dataclass(frozen=True)
class Fixed:
    """Every length is `tokens`."""

    tokens: int

    def __post_init__(self) -> None:
        if not 1 <= self.tokens <= LARGEST_HIGH:
            raise ConfigError(
                f"a fixed length needs 1 <= tokens <= {LARGEST_HIGH}, got {self.tokens}"
            )

    def quantile(self, u: Floats) -> Tokens:
        return np.full(u.shape, self.tokens, dtype=np.int32)

    def sample(self, n: int, rng: np.random.Generator) -> Tokens:
        return np.full(n, self.tokens, dtype=np.int32)


@dataclass(frozen=True)
class Uniform(BoundedLaw):
    """Each whole number from low to high, equally likely."""

    def cdf(self, tokens: Floats) -> Floats:
        share = (tokens - (self.low - 0.5)) / (self.high - self.low + 1)
        return np.clip(share, 0.0, 1.0)


@dataclass(frozen=True)
class Exponential(BoundedLaw):
    """Exponential with this mean (tokens), before rounding and bounds."""

    mean: float

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive("exponential", mean=self.mean)

    def cdf(self, tokens: Floats) -> Floats:
        return -np.expm1(-tokens / self.mean)


@dataclass(frozen=True)
class LognormalMixture(BoundedLaw):
    """A mixture of lognormals: components (weight, mu, sigma) of the natural logarithm.

    The weights are shares of their sum. One component is a plain lognormal, two are what most
    traces need, more follow the spikes of truncated prompts.
    """

    components: tuple[tuple[float, float, float], ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.components:
            raise ConfigError("a lognormal mixture needs at least one component")
        for weight, mu, sigma in self.components:
            _positive("a lognormal's component", weight=weight, sigma=sigma)
            if not math.isfinite(mu):
                raise ConfigError(f"a lognormal's mu must be a finite number, got {mu}")

    def cdf(self, tokens: Floats) -> Floats:
        logs = np.log(tokens)
        total = sum(weight for weight, _, _ in self.components)
        result = np.zeros_like(logs)
        for weight, mu, sigma in self.components:
            result += weight / total * normal_cdf((logs - mu) / sigma)
        return result


@dataclass(frozen=True)
class Zipf(BoundedLaw):
    """P(k) proportional to k^-exponent over low ... high, so that any exponent will do."""

    exponent: float = 1.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not math.isfinite(self.exponent) or self.exponent < 0:
            raise ConfigError(f"zipf needs exponent >= 0, got {self.exponent}")

    def cdf(self, tokens: Floats) -> Floats:
        # Over low, so that the first weight is 1 and a high exponent does not lose them all.
        lengths = np.arange(self.low, self.high + 1, dtype=np.float64) / self.low
        weights = lengths**-self.exponent
        cumulative = np.concatenate(([0.0], np.cumsum(weights)))
        below = np.clip(np.floor(tokens) - self.low + 1, 0, len(weights)).astype(np.int64)
        return np.asarray(cumulative[below] / cumulative[-1])


@dataclass(frozen=True, repr=False)
class Empirical(BoundedLaw):
    """The lengths of a trace, as they are: the inverse of their own distribution function."""

    values: tuple[int, ...]

    def __repr__(self) -> str:
        return f"Empirical({len(self.values)} lengths, low={self.low}, high={self.high})"

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.values:
            raise ConfigError("an empirical law needs at least one length")

    def cdf(self, tokens: Floats) -> Floats:
        ordered = np.sort(np.asarray(self.values, dtype=np.int64))
        return np.searchsorted(ordered, tokens, side="right") / len(ordered)


Side = Literal["prompt", "output"]


def empirical(trace: Trace, column: Side, *, low: int = 1, high: int | None = None) -> Empirical:
    """The law of a trace's `prompt_tokens` or `output_tokens`; `high` is its largest by default."""
    values = trace.prompt_tokens if column == "prompt" else trace.output_tokens
    largest = max(int(values.max()), low)
    return Empirical(tuple(values.tolist()), low=low, high=largest if high is None else high)


def sample_pair(
    prompt: LengthLaw, output: LengthLaw, rho: float, n: int, rng: np.random.Generator
) -> tuple[Tokens, Tokens]:
    """n prompt and output lengths whose rank (Spearman) correlation is rho, by a Gaussian copula.

    Rounding to whole tokens and spikes in a law pull the measured correlation a little towards 0.

    Raises:
        ConfigError: rho outside [-1, 1].
    """
    check_rho(rho)
    first = rng.standard_normal(n)
    second = rng.standard_normal(n)
    # Spearman's rho of a bivariate normal with correlation r is 6/pi asin(r/2).
    correlation = 2.0 * math.sin(math.pi * rho / 6.0)
    second = correlation * first + math.sqrt(max(0.0, 1.0 - correlation**2)) * second
    return prompt.quantile(normal_cdf(first)), output.quantile(normal_cdf(second))


def check_rho(rho: float) -> None:
    """Raises ConfigError if rho is not a correlation."""
    if not -1.0 <= rho <= 1.0:
        raise ConfigError(f"rho must be a rank correlation from -1 to 1, got {rho}")


def parse_law(text: str, side: Side) -> LengthLaw:
    """A law from its spec, as in `--prompt lognormal:mu=6,sigma=1` and `--output fixed:128`.

    `empirical:FILE` takes the lengths of the trace FILE, of the column that `side` names.

    Raises:
        ConfigError: an unknown law or parameter, or a value out of range.
        TraceError: the file of `empirical` is not a trace.
    """
    spec = parse_spec(text)
    if spec.name not in LAWS:
        raise unknown_name("length law", spec.name, LAWS)
    if spec.name == "empirical":
        return _empirical_from_spec(spec, side)
    law: LengthLaw = build_from_spec("length law", LAWS[spec.name], spec)
    return law


def _lognormal(
    mu: float,
    sigma: float,
    low: int = 1,
    high: int = DEFAULT_HIGH,
    over: Literal["clip", "redraw"] = "clip",
) -> LognormalMixture:
    """exp of a normal with mean mu and standard deviation sigma"""
    return LognormalMixture(((1.0, mu, sigma),), low=low, high=high, over=over)


def _mixture(
    weight: float,
    mu1: float,
    sigma1: float,
    mu2: float,
    sigma2: float,
    low: int = 1,
    high: int = DEFAULT_HIGH,
    over: Literal["clip", "redraw"] = "clip",
) -> LognormalMixture:
    """two lognormals, the first with probability weight"""
    if not 0.0 < weight < 1.0:
        raise ConfigError(f"length law 'mixture' needs 0 < weight < 1, got {weight}")
    components = ((weight, mu1, sigma1), (1.0 - weight, mu2, sigma2))
    return LognormalMixture(components, low=low, high=high, over=over)


def _empirical(
    trace: str,
    column: Literal["prompt", "output"] = "prompt",
    low: int = 1,
    high: int | None = None,
) -> Empirical:
    """the lengths of a trace file; column says whether of its prompts or its outputs"""
    from schedsim.traces import read_trace  # the readers are not needed to generate

    return empirical(read_trace(trace), column, low=low, high=high)


def _empirical_from_spec(spec: Spec, side: Side) -> Empirical:
    parameters = {"column": side} | spec.parameters
    return build_from_spec("length law", _empirical, spec._replace(parameters=parameters))


LAWS: dict[str, Callable[..., LengthLaw]] = {
    "fixed": Fixed,
    "uniform": Uniform,
    "exponential": Exponential,
    "lognormal": _lognormal,
    "mixture": _mixture,
    "zipf": Zipf,
    "empirical": _empirical,
}


def _positive(owner: str, **values: float) -> None:
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise ConfigError(f"{owner} needs {name} > 0, got {value}")
