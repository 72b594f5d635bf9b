"""Our own files: Parquet, and JSON lines that open with a metadata object."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from schedsim.errors import TraceError
from schedsim.traces.own_format import BLOCKS, KEY, Metadata, parse_metadata
from schedsim.traces.readers.hashed import join_chains
from schedsim.traces.readers.json_records import Fields, Records
from schedsim.traces.readers.source_file import SourceFile
from schedsim.traces.selection import ColumnMap
from schedsim.traces.trace import COLUMN_TYPES, IntColumn, PromptBlocks, Trace

PARQUET_MAGIC = b"PAR1"


def read_own_jsonl(file: SourceFile, records: Records) -> Trace:
    """JSON lines as `write_trace` writes them; null in a column of numbers means none.

    Raises:
        TraceError: a broken header or row, or fewer rows than the header says.
    """
    _, header = next(records.items)
    metadata = parse_metadata(str(file.path), header)
    values: dict[str, list[Any]] = {name: [] for name in metadata.columns}
    getters = [(name, _getter(name), values[name]) for name in metadata.columns]
    chains: list[IntColumn] = []
    for number, row in records.items:
        fields = Fields(file, f"line {number}", row)
        for name, get, column in getters:
            column.append(get(fields, name))
        if metadata.block_size is not None:
            chains.append(fields.block_ids(BLOCKS))
    columns = {name: np.array(column, dtype=COLUMN_TYPES[name]) for name, column in values.items()}
    blocks = None
    if metadata.block_size is not None:
        blocks = join_chains(metadata.block_size, chains)
    return _build(file, metadata, columns, blocks)


def _getter(name: str) -> Callable[[Fields, str], int | float]:
    kind = np.dtype(COLUMN_TYPES[name])
    if kind == np.float64:
        return lambda fields, name: fields.number(name) if name in fields else float("nan")
    if kind == np.int32:
        return _int32
    return Fields.whole


def _int32(fields: Fields, name: str) -> int:
    value = fields.whole(name)
    if not 0 <= value < 2**31:
        raise fields.error(name, "is not between 0 and 2^31 - 1")
    return value


def read_parquet(file: SourceFile) -> Trace:
    """A Parquet file as `write_trace` writes it.

    Raises:
        TraceError: damaged, or not written by schedsim.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # One thread: a worker of Arrow's pool that is still up at exit now and then aborts Python.
        source = pq.ParquetFile(pa.BufferReader(file.data), page_checksum_verification=True)
        table = source.read(use_threads=False)
        return _from_table(file, table)
    except (pa.ArrowException, OSError, ValueError, RecursionError) as error:
        # ValueError: names or metadata whose bytes are no longer text
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TraceError(
            f"{file.path}: is not a whole Parquet file ({reason}); write or copy it again"
        ) from None


def _from_table(file: SourceFile, table: Any) -> Trace:
    import pyarrow as pa

    stored = (table.schema.metadata or {}).get(KEY.encode())
    if stored is None:
        raise TraceError(
            f"{file.path}: is a Parquet file without {KEY!r} metadata (columns: "
            f"{', '.join(table.column_names)}); export the rows as CSV or JSON lines"
        )
    metadata = parse_metadata(str(file.path), json.loads(stored))
    columns: ColumnMap = {}
    for name in metadata.columns:
        kind = pa.from_numpy_dtype(COLUMN_TYPES[name])
        columns[name] = _arrow_chunk(file, table, name, kind).to_numpy(zero_copy_only=False)
    blocks = None
    if metadata.block_size is not None:
        lists = _arrow_chunk(file, table, BLOCKS, pa.list_(pa.int64()))
        blocks = PromptBlocks(
            metadata.block_size,
            np.asarray(lists.offsets).astype(np.int64),
            np.asarray(lists.values).astype(np.int64, copy=False),
        )
    return _build(file, metadata, columns, blocks)


def _arrow_chunk(file: SourceFile, table: Any, name: str, kind: Any) -> Any:
    import pyarrow as pa

    if name not in table.column_names or table.schema.field(name).type != kind:
        raise TraceError(f"{file.path}: has no column {name!r} of type {kind}; convert again")
    chunk = table.column(name).combine_chunks()
    if isinstance(chunk, pa.ChunkedArray):  # no row group at all
        chunk = pa.array([], type=kind)
    if chunk.null_count:
        raise TraceError(f"{file.path}: column {name!r} holds nulls; convert the trace again")
    return chunk


def _build(
    file: SourceFile, metadata: Metadata, columns: ColumnMap, blocks: PromptBlocks | None
) -> Trace:
    rows = len(columns["arrival"])
    if rows != metadata.rows:
        raise TraceError(
            f"{file.path}: holds {rows:,} rows, its metadata says {metadata.rows:,}; "
            "it was cut or edited: write it again"
        )
    return Trace(
        source=metadata.source(file.name, file.sha256),
        has_arrivals=metadata.has_arrivals,
        tenant_names=metadata.tenant_names,
        blocks=blocks,
        **columns,
    )
