"""A report on a million requests takes little time and room."""

import shutil
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.cli.commands import schedsim

COPIES = 1000
CPU_S, MOST_BYTES = 30.0, 5_000_000


def repeated(table: pa.Table, period: float) -> pa.Table:
    """`COPIES` of a table one after the other; times of each `period` seconds after the last."""
    long = pa.concat_tables([table] * COPIES).combine_chunks()
    later = np.repeat(np.arange(COPIES) * period, table.num_rows)
    for name in ("arrival", "released", "admitted", "first_token", "finished", "start"):
        if name in long.column_names:
            place = long.column_names.index(name)
            moved = pa.array(long[name].to_numpy() + later, from_pandas=True)
            long = long.set_column(place, name, moved)
    if "end" in long.column_names:
        ends = long["end"].combine_chunks()
        moved = pa.ListArray.from_arrays(ends.offsets, pa.array(np.asarray(ends.values) + later))
        long = long.set_column(long.column_names.index("end"), "end", moved)
    return long


@pytest.mark.slow
def test_a_report_on_a_million_requests_is_quick_and_small(tmp_path: Path) -> None:
    pytest.importorskip("altair")
    run, long = tmp_path / "run", tmp_path / "long"
    assert schedsim("run", "-q", "--limit", 1000, "--out", run).exit_code == 0
    shutil.copytree(run, long)
    for name in ("requests.parquet", "steps.parquet"):
        pq.write_table(repeated(pq.read_table(run / name), 250.0), long / name)
    assert pq.read_metadata(long / "requests.parquet").num_rows == 1_000_000
    began = time.process_time()
    out = tmp_path / "report.html"
    assert schedsim("report", long, "-q", "--out", out).exit_code == 0
    assert time.process_time() - began < CPU_S
    assert out.stat().st_size < MOST_BYTES
