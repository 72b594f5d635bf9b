"""The traces that a sweep names: the sample, a file, or a recipe that each seed draws anew."""

from pathlib import Path
from typing import NamedTuple

from schedsim.errors import ConfigError
from schedsim.specs import build_from_spec, parse_spec
from schedsim.traces import Trace, read_trace
from schedsim.traces.generators import find_preset
from schedsim.traces.generators.presets import generate
from schedsim.traces.sample import sample_trace

SAMPLE, RECIPE = "sample", "generate"


class Recipe(NamedTuple):
    """`generate:PRESET,requests=N,rate=R`: a trace of a preset, drawn from the run's seed."""

    preset: str
    requests: int = 1000
    rate: float | None = None


def is_recipe(name: str) -> bool:
    """Whether each seed draws the trace of this name anew.

    Raises:
        ConfigError: a wrong recipe.
    """
    return _recipe(name) is not None


def check_trace(name: str) -> None:
    """Refuse a trace that cannot be had, without reading it.

    Raises:
        ConfigError: no such file, or a wrong recipe.
    """
    recipe = _recipe(name)
    if recipe is not None:
        find_preset(recipe.preset)
        if recipe.requests < 1:
            raise ConfigError(f"trace {name!r}: requests must be at least 1")
    elif name != SAMPLE and not Path(name).is_file():
        raise ConfigError(
            f"trace {name!r}: no such file; give a file, {SAMPLE!r}, or "
            f"{RECIPE}:PRESET,requests=N,rate=R"
        )


def load_trace(name: str, seed: int) -> Trace:
    """The trace of a run with this seed.

    Raises:
        ConfigError, TraceError: it cannot be read or made.
    """
    recipe = _recipe(name)
    if recipe is not None:
        return generate(recipe.preset, recipe.requests, seed=seed, rate=recipe.rate)
    return sample_trace() if name == SAMPLE else read_trace(Path(name))


def _recipe(name: str) -> Recipe | None:
    if Path(name).is_file():
        return None
    spec = parse_spec(name)
    return build_from_spec("trace", Recipe, spec) if spec.name == RECIPE else None
