"""Traces of a protocol, and a stretch of one at the rate that a cell asks for."""

from pathlib import Path

from schedsim.config import RunSettings
from schedsim.errors import ConfigError
from schedsim.experiments.protocol.plan import Source
from schedsim.traces import Trace, read_trace
from schedsim.traces.generators.presets import generate
from schedsim.traces.generators.tenants import parse_tenants
from schedsim.traces.transforms import over_context, window

LEAST_REQUESTS = 10


def load_source(source: Source, folder: Path) -> Trace:
    """The trace of a source; files stand below `folder`.

    Raises:
        ConfigError, TraceError: it cannot be read or made.
    """
    if source.file is not None:
        path = folder / source.file
        if not path.is_file():
            raise ConfigError(f"{path}: no such trace; name the folder of the traces")
        trace = read_trace(path, spread_ticks=source.spread_ticks)
    else:
        assert source.preset is not None, "a source is a file or a preset"
        tenants = None if source.tenants is None else parse_tenants(source.tenants)
        trace = generate(source.preset, source.requests, seed=source.seed, tenants=tenants)
    if source.window is not None:
        trace = window(trace, *source.window)
    return trace if source.clip is None else over_context(trace, source.clip, "clip")


def at_rate(trace: Trace, settings: RunSettings, rate: float, seconds: float) -> RunSettings:
    """The settings under which the first requests of `trace` come at `rate` for `seconds`.

    The arrivals keep their pattern: they are stretched, not drawn.

    Raises:
        ConfigError: the trace has not so many requests.
    """
    count = max(LEAST_REQUESTS, round(rate * seconds))
    # one more, whose arrival ends the span of the others
    _check_length(trace, count + 1, f"{rate:.3g} a second for {seconds:g} s are {count:,}")
    span = float(trace.arrival[count] - trace.arrival[0])
    if span <= 0:
        raise ConfigError(f"{trace.source.name}: its first {count:,} requests come at one time")
    return settings.model_copy(update={"limit": count, "rate_scale": span * rate / count})


def at_once(trace: Trace, settings: RunSettings, requests: int) -> RunSettings:
    """The settings under which the first requests of `trace` are all there from the beginning: the
    decisions of an engine that is never out of work depend on no clock then.

    Raises:
        ConfigError: the trace has not so many requests.
    """
    _check_length(trace, requests, f"{requests:,} are asked for")
    return settings.model_copy(update={"limit": requests, "arrivals": "burst"})


def _check_length(trace: Trace, needed: int, asked: str) -> None:
    if needed > len(trace):
        raise ConfigError(
            f"{trace.source.name} has {len(trace):,} requests; {asked}: take a shorter time or a "
            "longer trace"
        )
