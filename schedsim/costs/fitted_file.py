"""`FittedFile`: what `schedsim calibrate` writes, read and checked."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from schedsim.costs.features import FEATURES, KINDS, UNPADDED, Padding
from schedsim.costs.packaged import calibration_names, read_calibration
from schedsim.costs.throttle import Throttle
from schedsim.errors import ConfigError

FILE_VERSION: Literal[3] = 3
"""The format that this version writes and reads; 1 had one coefficient for each count, 2 the same
number of chunks for all sizes of `padding`."""

Range = tuple[float, float]
NotNegative = Annotated[float, Field(ge=0)]
Quantiles = Annotated[list[NotNegative], Field(min_length=1)]


class Term(BaseModel):
    """What one feature costs: `slopes[i]` seconds a unit from `knots[i]` on, the first one 0."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    knots: list[NotNegative] = Field(min_length=1)
    slopes: list[NotNegative]

    @model_validator(mode="after")
    def _is_a_curve(self) -> "Term":
        if self.knots[0] != 0 or any(low >= high for low, high in pairwise(self.knots)):
            raise ValueError("knots must ascend from 0")
        if len(self.slopes) != len(self.knots):
            raise ValueError("there must be as many slopes as knots")
        return self


class Part(BaseModel):
    """Seconds an iteration (`base`) and those by each of `FEATURES` that costs something."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    base: NotNegative = 0.0
    terms: dict[str, Term] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _names_features(self) -> "Part":
        for name in self.terms:
            if name not in FEATURES:
                raise ValueError(f"{name} is none of {', '.join(FEATURES)}")
        return self


class Parts(BaseModel):
    """One for each of `StepParts`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: Part = Part()
    device: Part = Part()
    gap: Part = Part()


class FittedFile(BaseModel):
    """The JSON file: a step time, what it was fitted to, and how well it fits.

    `padding` are the sizes to which the engine pads its batches, `throttle` how the device slows
    down under load; without one it does not. `ranges` holds least and most of each feature in the
    runs, `steps` the number of their iterations, `provenance` says what ran where, `residuals` how
    far the fit is off. `noise` is how repeats of one size scattered around their mean, without what
    the fit misses: quantiles of factors at even ranks by kind of batch, whose mean is 1; a kind
    that was hardly repeated has none. Only `parts`, `padding` and `throttle` change a step time,
    and `noise` where it is asked for.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: Literal["schedsim step time"] = "schedsim step time"
    file_version: Literal[3] = FILE_VERSION
    parts: Parts
    padding: Padding = UNPADDED
    throttle: Throttle | None = None
    ranges: dict[str, Range]
    steps: int = Field(ge=0)
    provenance: dict[str, Any]
    residuals: dict[str, Any]
    noise: dict[str, Quantiles] = Field(default_factory=dict)
    warnings: list[str]

    @model_validator(mode="after")
    def _names_kinds(self) -> "FittedFile":
        for kind in self.noise:
            if kind not in KINDS:
                raise ValueError(f"noise: {kind} is none of {', '.join(KINDS)}")
        return self


def read_fitted_file(path: str, option: str = "--step-time fitted:") -> tuple[FittedFile, bool]:
    """The content of the JSON file `path`, or of the packaged one of this bare name (then True).

    `option` is what it was given to, for messages.

    Raises:
        ConfigError: no such file, no JSON, another kind or format of file, or a number that is
            negative or not finite; names the file and the field.
    """
    where = f"{option}{path}"
    packaged = read_calibration(path)
    try:
        text = Path(path).read_text(encoding="utf-8") if packaged is None else packaged
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{where}: cannot read the file: {error}; `schedsim calibrate` writes one, and with "
            f"schedsim come {', '.join(calibration_names()) or 'none'}"
        ) from None
    version = _version(text)
    if version is not None and version != FILE_VERSION:
        raise ConfigError(
            f"{where}: the file has format {version}, this schedsim reads format {FILE_VERSION}; "
            "fit its runs again with  schedsim calibrate --from RUN_DIR"
        )
    try:
        return FittedFile.model_validate_json(text), packaged is not None
    except ValidationError as error:
        problems = error.errors()
        told = "; ".join(f"{_place(problem)}{problem['msg']}" for problem in problems[:3])
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ConfigError(f"{where}: no file of `schedsim calibrate`: {told}{more}") from None


def _version(text: str) -> int | None:
    """The format that a file of ours says it has; None if it says none."""
    try:
        content = json.loads(text)
    except ValueError:
        return None
    version = content.get("file_version") if isinstance(content, dict) else None
    return version if isinstance(version, int) else None


def _place(problem: Any) -> str:
    place = ".".join(map(str, problem["loc"]))
    return f"{place}: " if place else ""
