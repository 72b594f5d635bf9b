"""`Point`: one run of a sweep, what it is called in the dataset, and what its key depends on."""

import functools
import hashlib
import itertools
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from schedsim.config import RunSettings, make_settings
from schedsim.costs import parse_tables
from schedsim.errors import ConfigError
from schedsim.experiments.setup import with_step_time
from schedsim.experiments.step_time import ROOFLINE
from schedsim.policies.loading import make_policy
from schedsim.results.summary import SCHEMA_VERSION
from schedsim.specs import parse_spec
from schedsim.sweep.config import CapacityConfig, Scalar, SweepConfig
from schedsim.sweep.traces import SAMPLE, check_trace


@dataclass(frozen=True, slots=True)
class Point:
    """One run: its trace, its settings, and the parameters `setting.parameter` that a grid named.

    With `searched` it is a search for the capacity, and a run only with a value for that setting.
    """

    assigned: tuple[tuple[str, Scalar], ...]
    searched: str | None = None

    @property
    def parameters(self) -> dict[str, Scalar]:
        """What was assigned to parameters of settings, by `setting.parameter`."""
        return {name: value for name, value in self.assigned if "." in name}

    @property
    def trace(self) -> str:
        """The name, file or recipe of its trace."""
        return str(self._whole().get("trace", SAMPLE))

    def settings(self) -> RunSettings:
        """Its settings, with the step time that they come to.

        Raises:
            ConfigError: one is wrong, or a parameter is given twice.
            PolicyError: a policy of the user's does not import.
        """
        settings = make_settings(**{k: v for k, v in self._whole().items() if k != "trace"})
        return with_step_time(settings)

    def at(self, value: float) -> "Point":
        """The run of a search at one value."""
        assert self.searched is not None, "only a search has values"
        return Point((*self.assigned, (self.searched, value)))

    def columns(self) -> dict[str, Any]:
        """Its trace, settings and parameters as they stand in the dataset."""
        return {"trace": self.trace, **self.settings().model_dump(), **self.parameters}

    def key(self) -> str:
        """What names the run: the same for the same trace, settings and files that these name."""
        columns = {"trace": self.trace, **self.settings().model_dump()}
        files = {
            name: _digest(part, part.stat().st_mtime_ns)
            for value in columns.values()
            if isinstance(value, str)
            for name in [*re.split("[:,=]", value), value, *_tables_in(value)]
            if (part := Path(name)).is_file()
        }
        named = {"schema": SCHEMA_VERSION, "columns": columns, "files": files}
        text = json.dumps(named, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def _whole(self) -> dict[str, Any]:
        """The assignments with each parameter written into the spec that it belongs to."""
        whole: dict[str, Any] = {name: value for name, value in self.assigned if "." not in name}
        for name, value in self.parameters.items():
            setting, _, parameter = name.partition(".")
            spec = whole.get(setting, _default(setting))
            if not isinstance(spec, str):
                raise ConfigError(f"{name}: {setting} is {spec!r}, which has no parameters")
            if parameter in parse_spec(spec).parameters:
                raise ConfigError(f"{name}={value}: {spec!r} has it already")
            text = str(value).lower() if isinstance(value, bool) else value
            whole[setting] = f"{spec},{parameter}={text}"
        return whole


def points_of(config: SweepConfig) -> list[Point]:
    """Every run of a sweep, or every search, once, in the order of the file.

    Raises:
        ConfigError, PolicyError: a setting, a policy or a trace of one of them is wrong.
    """
    searched = None if config.capacity is None else config.capacity.setting
    found: dict[str, Point] = {}
    for assigned in _combinations(config):
        point = Point(tuple(assigned.items()), searched)
        run = point if config.capacity is None else point.at(config.capacity.low)
        make_policy(run.settings().policy)
        check_trace(run.trace)
        found.setdefault(run.key(), point)
    return list(found.values())


def _combinations(config: SweepConfig) -> Iterator[dict[str, Scalar]]:
    for grid in config.grids:
        for values in itertools.product(*grid.values()):
            yield {**config.settings, **dict(zip(grid, values, strict=True))}


def varied(config: SweepConfig) -> list[str]:
    """The settings in which the runs differ, in the order of the file."""
    names = [
        name
        for grid in config.grids
        for name, values in grid.items()
        if len(values) > 1 or len(config.grids) > 1
    ]
    return list(dict.fromkeys(names))


def describe_search(capacity: CapacityConfig) -> str:
    """A search in words."""
    return (
        f"the highest {capacity.setting} from {capacity.low:g} to {capacity.high:g} that keeps "
        f"{' and '.join(capacity.keep)}"
    )


def _default(setting: str) -> Mapping[str, Any] | Any:
    own = {"trace": SAMPLE, "step_time": ROOFLINE}  # a calibration has no parameters
    return own[setting] if setting in own else RunSettings.model_fields[setting].default


def _tables_in(spec: str) -> list[str]:
    """The files of the folder that a spec `tables:DIR,…` names."""
    if spec.partition(":")[0] != "tables":
        return []
    return [str(path) for path in sorted(Path(parse_tables(spec).directory).glob("*.csv"))]


@functools.lru_cache(maxsize=256)
def _digest(path: Path, changed_ns: int) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
