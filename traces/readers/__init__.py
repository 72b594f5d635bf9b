"""Readers of trace files, chosen by content."""

from schedsim.traces.readers.reading import FORMATS, read_trace

__all__ = ["FORMATS", "read_trace"]
