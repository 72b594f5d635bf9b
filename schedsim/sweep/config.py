"""`SweepConfig`: the file of a sweep, TOML or YAML, checked before anything runs."""

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    ValidationError,
)
from pydantic_core import ErrorDetails

from schedsim.config import RunSettings
from schedsim.errors import ConfigError
from schedsim.specs import unknown_name

Scalar = StrictBool | StrictInt | StrictFloat | StrictStr
Grid = dict[str, Annotated[list[Scalar], Field(min_length=1)]]

SETTINGS = ("trace", *RunSettings.model_fields)
"""What a sweep can set: the trace, and everything that a run depends on beside it."""

INSTALL_YAML = "pip install 'schedsim[sweep]' brings it; or write the file as TOML"


class CapacityConfig(BaseModel):
    """The search for the highest `setting` in [low, high] that keeps every condition of `keep`.

    Bisection on a logarithmic scale until the bounds are within `tolerance` of each other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    setting: str
    low: float = Field(gt=0, allow_inf_nan=False)
    high: float = Field(gt=0, allow_inf_nan=False)
    tolerance: float = Field(0.05, gt=0, allow_inf_nan=False)
    keep: list[str] = Field(min_length=1)


class SweepConfig(BaseModel):
    """Settings of all runs, and one grid or several: every combination of a grid's values runs."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    settings: dict[str, Scalar] = Field(default_factory=dict)
    grid: Grid | list[Grid] = Field(default_factory=dict)
    capacity: CapacityConfig | None = None

    @property
    def grids(self) -> Sequence[Grid]:
        """The grids; one that is empty is one run."""
        return self.grid if isinstance(self.grid, list) else [self.grid]


def read_config(path: Path) -> SweepConfig:
    """The sweep that a `.toml`, `.yaml` or `.yml` file describes.

    Raises:
        ConfigError: it cannot be read, or something in it is unknown or of a wrong type.
    """
    content = _read(path)
    try:
        config = SweepConfig.model_validate(content)
    except ValidationError as error:
        told = "; ".join(_told(problem) for problem in error.errors())
        raise ConfigError(f"{path}: {told}") from None
    for name in (*config.settings, *(name for grid in config.grids for name in grid)):
        check_setting(name)
    capacity = config.capacity
    if capacity is not None:
        check_setting(capacity.setting)
        if capacity.low >= capacity.high:
            raise ConfigError(f"{path}: capacity: low {capacity.low} must be below {capacity.high}")
        field = RunSettings.model_fields.get(capacity.setting)
        if "." not in capacity.setting and (field is None or field.annotation is not float):
            raise ConfigError(
                f"{path}: capacity: {capacity.setting} is not searched; give rate_scale, or a "
                "parameter such as arrivals.rate"
            )
        fixed = [*config.settings, *(name for grid in config.grids for name in grid)]
        if capacity.setting in fixed:
            raise ConfigError(
                f"{path}: {capacity.setting} is what capacity searches; leave it out elsewhere"
            )
    return config


def check_setting(name: str) -> None:
    """Refuse a name that is no setting, and no parameter `setting.parameter` of one.

    Raises:
        ConfigError: it is neither.
    """
    setting, dot, parameter = name.partition(".")
    if setting not in SETTINGS:
        raise unknown_name("setting", setting, SETTINGS)
    if dot and not parameter.isidentifier():
        raise ConfigError(f"{name!r}: write setting.parameter, as in policy.chunk_size")


def _read(path: Path) -> Any:
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; see docs/sweep.md for what a sweep looks like")
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".toml":
        try:
            return tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{path} is not TOML: {error}") from None
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"{path}: the suffix must be .toml, .yaml or .yml")
    try:
        import yaml
    except ModuleNotFoundError:
        raise ConfigError(f"{path}: PyYAML is not installed; {INSTALL_YAML}") from None
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        reason = str(error).replace("\n", " ")
        raise ConfigError(f"{path} is not YAML: {reason}") from None


def _told(problem: ErrorDetails) -> str:
    parts = [str(part) for part in problem["loc"] if not str(part).startswith(("dict[", "list["))]
    where = ".".join(parts) or "the file"
    if problem["type"] == "extra_forbidden":
        return f"unknown key {where!r}; known: {', '.join(SweepConfig.model_fields)}"
    return f"{where}: {problem['msg']}"
