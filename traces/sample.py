"""The bundled sample: a synthetic chat trace that a run uses where no trace is given.

Made by `schedsim trace generate --preset azure-conv --requests 3000 --rate 5.5 --seed 1`.
"""

from importlib.resources import as_file, files

from schedsim.traces.readers import read_trace
from schedsim.traces.trace import Trace

SAMPLE_REQUESTS = 3000
SAMPLE_RATE = 5.5
SAMPLE_SEED = 1


def sample_trace() -> Trace:
    """The sample trace: 3,000 synthetic chat requests over about nine minutes."""
    with as_file(files("schedsim.traces") / "sample.parquet") as path:
        return read_trace(path)
