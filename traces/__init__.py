"""Request traces: the columnar `Trace`, readers, transforms, statistics and generators."""

from schedsim.traces.readers import read_trace
from schedsim.traces.trace import Trace, TraceSource
from schedsim.traces.writing import write_trace

__all__ = ["Trace", "TraceSource", "read_trace", "write_trace"]
