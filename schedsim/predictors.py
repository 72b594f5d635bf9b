"""Predictors of output length: the one way in which a policy may learn about a true length."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from schedsim.errors import ConfigError
from schedsim.request import Request
from schedsim.specs import build_from_spec, parse_spec, unknown_name


class Predictor(Protocol):
    """Writes `predicted_output` on a request at its arrival."""

    def predict(self, request: Request, output_tokens: int) -> float | None:
        """The predicted output of `request` in tokens, whose true output is `output_tokens`."""


@dataclass(frozen=True, slots=True)
class TraceColumn:
    """`none`: no prediction but the one that the trace's own column holds."""

    def predict(self, request: Request, output_tokens: int) -> float | None:
        """What the trace says."""
        return request.predicted_output


@dataclass(frozen=True, slots=True)
class Oracle:
    """`oracle`: the true length."""

    def predict(self, request: Request, output_tokens: int) -> float | None:
        """The true length."""
        return float(output_tokens)


@dataclass(frozen=True, slots=True)
class LognormalNoise:
    """`lognormal`: the true length times exp(sigma·Z), at least 1 token; Z standard normal.

    The median of the prediction is the truth. Draws come in order of arrival.
    """

    rng: np.random.Generator = field(repr=False)
    sigma: float = 0.5

    def __post_init__(self) -> None:
        if not 0.0 <= self.sigma < 10.0:
            raise ConfigError(f"predictor 'lognormal': sigma={self.sigma} is not in [0, 10)")

    def predict(self, request: Request, output_tokens: int) -> float | None:
        """The noisy length."""
        return max(1.0, output_tokens * float(np.exp(self.sigma * self.rng.standard_normal())))


def make_predictor(text: str, rng: np.random.Generator) -> Predictor:
    """Build the predictor named by the spec `text`: `none`, `oracle` or `lognormal,sigma=0.5`.

    Raises:
        ConfigError: an unknown name or parameter.
    """

    def lognormal(sigma: float = 0.5) -> Predictor:
        return LognormalNoise(rng, sigma)

    predictors: dict[str, Callable[..., Predictor]] = {
        "none": TraceColumn,
        "oracle": Oracle,
        "lognormal": lognormal,
    }
    spec = parse_spec(text)
    if spec.name not in predictors:
        raise unknown_name("predictor", spec.name, predictors)
    return build_from_spec("predictor", predictors[spec.name], spec)
