"""Writing a trace as our own Parquet or JSON lines; what is written reads back equal."""

import gzip
import io
import json
import math
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from schedsim.errors import ConfigError, OutputError
from schedsim.traces.own_format import BLOCKS, KEY, dump_metadata
from schedsim.traces.trace import Trace

SUFFIXES = (".parquet", ".jsonl", ".jsonl.gz")


def write_trace(trace: Trace, path: str | Path) -> None:
    """Write `trace` to `path`, whose suffix says how: .parquet, .jsonl or .jsonl.gz.

    The file appears under its name only when it is whole; one that was there is replaced. Equal
    traces give equal bytes.

    Raises:
        ConfigError: another suffix.
        OutputError: the file cannot be written.
    """
    path = Path(path)
    suffix = next((suffix for suffix in SUFFIXES if path.name.endswith(suffix)), None)
    if suffix is None:
        raise ConfigError(f"{path}: the suffix must be one of {', '.join(SUFFIXES)}")
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        try:
            with temporary.open("wb") as out:
                _write(trace, suffix, out)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"{path} cannot be written: {reason}; give a file in a folder that exists, can be "
            "written to and has room"
        ) from None


def _write(trace: Trace, suffix: str, out: io.BufferedWriter) -> None:
    if suffix == ".parquet":
        _write_parquet(trace, out)
    elif suffix == ".jsonl":
        out.writelines(_json_lines(trace))
    else:
        # No name and no time in the header: equal traces give equal bytes.
        with gzip.GzipFile("", "wb", compresslevel=6, fileobj=out, mtime=0) as packed:
            packed.writelines(_json_lines(trace))


def _write_parquet(trace: Trace, out: io.BufferedWriter) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns: dict[str, Any] = {name: pa.array(values) for name, values in trace.columns().items()}
    if trace.blocks is not None:
        offsets = trace.blocks.offsets.astype("int32")
        columns[BLOCKS] = pa.ListArray.from_arrays(pa.array(offsets), pa.array(trace.blocks.ids))
    table = pa.table(columns).replace_schema_metadata({KEY: dump_metadata(trace)})
    pq.write_table(table, out, compression="zstd", write_page_checksum=True)


def _json_lines(trace: Trace) -> Iterator[bytes]:
    yield dump_metadata(trace).encode() + b"\n"
    columns = {name: values.tolist() for name, values in trace.columns().items()}
    for row in range(len(trace)):
        fields: dict[str, Any] = {}
        for name, values in columns.items():
            value = values[row]
            is_none = isinstance(value, float) and math.isnan(value)
            fields[name] = None if is_none else value
        if trace.blocks is not None:
            start, end = trace.blocks.offsets[row : row + 2]
            fields[BLOCKS] = trace.blocks.ids[start:end].tolist()
        yield json.dumps(fields).encode() + b"\n"
