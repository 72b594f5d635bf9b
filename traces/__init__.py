"""Request traces: the columnar `Trace`, readers, transforms, statistics and generators."""

from schedsim.traces.trace import Trace, TraceSource

__all__ = ["Trace", "TraceSource"]
