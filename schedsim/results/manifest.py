"""The manifest of a run: what was run, with what, and on what."""

import platform
from collections.abc import Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from schedsim.results.summary import SCHEMA_VERSION
from schedsim.traces.trace import Trace

PACKAGES = ("schedsim", "numpy", "pyarrow", "simpy")


def build_manifest(
    *,
    command: Sequence[str],
    config: dict[str, Any],
    trace: Trace,
    seed: int,
    decision_lag: int,
    estimator: dict[str, Any] | None,
    device: str = "cpu simulator",
) -> dict[str, Any]:
    """The manifest as it stands before the run; `finish` of the directory adds the speed.

    `config` is the configuration in full, JSON-ready. `estimator` describes what policies may ask
    for step times, None if there is none.
    """
    source = trace.source
    return {
        "schema_version": SCHEMA_VERSION,
        "command": list(command),
        "config": config,
        "trace": {
            "name": source.name,
            "format": source.format,
            "sha256": source.sha256,
            "origin": source.origin,
            "start_ns": source.start_ns,
            "notes": list(source.notes),
        },
        "seed": seed,
        "versions": {
            "python": platform.python_version(),
            **{name: package_version(name) for name in PACKAGES},
        },
        "device": device,
        "decision_lag": decision_lag,
        "estimator": estimator,
    }


def speed(output_tokens: int, num_requests: int, cpu_seconds: float) -> dict[str, Any]:
    """The simulator's speed; it stands in the manifest alone, because no two runs agree on it."""
    return {
        "simulator_speed": {
            "cpu_s": cpu_seconds,
            "output_tokens_per_cpu_s": output_tokens / max(cpu_seconds, 1e-9),
            "requests_per_cpu_s": num_requests / max(cpu_seconds, 1e-9),
        }
    }


@cache
def package_version(name: str) -> str | None:
    """The installed version of a package; None where there is none."""
    try:
        return version(name)
    except PackageNotFoundError:  # run from a checkout that is not installed
        return None
