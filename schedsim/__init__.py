"""The scheduling laboratory for LLM serving.

Names are imported when they are first used, so `import schedsim` is quick and never loads torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from schedsim.errors import (
        ConfigError,
        ExecutionError,
        OutputError,
        PolicyError,
        SchedsimError,
        TraceError,
    )
    from schedsim.experiments.api import execute, simulate
    from schedsim.policies.base import Gate, Policy, PreemptMode, Release
    from schedsim.request import Request, Status
    from schedsim.results.result import Result
    from schedsim.scheduler.step import Step
    from schedsim.traces.generators.presets import generate
    from schedsim.traces.readers import read_trace
    from schedsim.traces.sample import sample_trace
    from schedsim.traces.trace import Trace
    from schedsim.traces.writing import write_trace

__all__ = [
    "ConfigError",
    "ExecutionError",
    "Gate",
    "OutputError",
    "Policy",
    "PolicyError",
    "PreemptMode",
    "Release",
    "Request",
    "Result",
    "SchedsimError",
    "Status",
    "Step",
    "Trace",
    "TraceError",
    "execute",
    "generate",
    "read_trace",
    "sample_trace",
    "simulate",
    "write_trace",
]

_PLACES = {
    "ConfigError": "schedsim.errors",
    "ExecutionError": "schedsim.errors",
    "Gate": "schedsim.policies.base",
    "OutputError": "schedsim.errors",
    "Policy": "schedsim.policies.base",
    "PolicyError": "schedsim.errors",
    "PreemptMode": "schedsim.policies.base",
    "Release": "schedsim.policies.base",
    "Request": "schedsim.request",
    "Result": "schedsim.results.result",
    "SchedsimError": "schedsim.errors",
    "Status": "schedsim.request",
    "Step": "schedsim.scheduler.step",
    "Trace": "schedsim.traces.trace",
    "TraceError": "schedsim.errors",
    "execute": "schedsim.experiments.api",
    "generate": "schedsim.traces.generators.presets",
    "read_trace": "schedsim.traces.readers",
    "sample_trace": "schedsim.traces.sample",
    "simulate": "schedsim.experiments.api",
    "write_trace": "schedsim.traces.writing",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'schedsim' has no attribute {name!r}")
    return getattr(import_module(_PLACES[name]), name)
