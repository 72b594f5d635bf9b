"""The files of per-layer kernel tables: what they hold, read and checked.

The format is that of LLMServingSim's profiler (casys-kaist/LLMServingSim, `profiler/`), which runs
one layer of a model in vLLM at many batch sizes and keeps the time of each kernel.
"""

import csv
import hashlib
import io
import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schedsim.costs.interpolation import Grid, every_count
from schedsim.costs.skew import BINS, Skew, make_skew
from schedsim.errors import ConfigError

IN_EACH_LAYER = {
    "layernorm": 2,  # before attention and before the MLP
    "qkv_proj": 1,
    "rotary_emb": 1,
    "o_proj": 1,
    "gate_up_proj": 1,
    "act_fn": 1,
    "down_proj": 1,
}
"""How often a decoder layer runs each kernel of dense.csv."""

QK_NORM = {"qk_norm": 1}
"""The same of a kernel that some models have."""

ONCE = {"embedding": 1, "final_layernorm": 1}
"""Kernels of dense.csv that an iteration runs once."""

PER_SEQUENCE = {"lm_head": 1, "sampler": 1}
"""Kernels of per_sequence.csv, once an iteration."""

LARGEST_SIZE = 1 << 24
"""More tokens than an iteration has; every count up to the largest takes some bytes of memory."""

_SIZES = ("prefill_chunk", "kv_prefill", "n_decode", "kv_decode")

Times = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class KernelTables:
    """Microseconds of kernels.

    `layer` (a layer's, without attention), `once` (what an iteration runs once) and `sequences`
    have a value for each count of tokens or sequences from 0. Attention of a layer is in `prefill`
    by chunk and its context, in `decode` by requests and their context, in `mixed` by all four.
    `files` are the SHA-256 of what was read, `about` is what meta.yaml says of model and machine.
    """

    layer: Times
    once: Times
    sequences: Times
    prefill: Grid
    decode: Grid
    mixed: Grid
    skew: Skew | None
    files: dict[str, str]
    about: dict[str, str]


def read_tables(directory: str, *, qk_norm: bool, skew: bool) -> KernelTables:
    """Read dense.csv, per_sequence.csv and attention.csv in `directory`, and skew_fit.csv if asked.

    `qk_norm` says whether the model has that kernel. Columns beside those needed are not read.

    Raises:
        ConfigError: a file, a column, a kernel or a combination of sizes is missing, a row stands
            twice, or a value is no number of its kind; names the file, and the line or kernel.
    """
    folder = Path(directory)
    in_layer = {**IN_EACH_LAYER, **(QK_NORM if qk_norm else {})}
    dense = _read(folder / "dense.csv", ("layer",), ("tokens",), "time_us")
    sequences = _read(folder / "per_sequence.csv", ("layer",), ("sequences",), "time_us")
    attention = _read(folder / "attention.csv", (), _SIZES, "time_us")
    tables = [dense, sequences, attention]
    uneven = None
    if skew:
        uneven = _read(folder / "skew_fit.csv", BINS, ("pc",), "alpha")
        tables.append(uneven)
    _check_kernels(dense, {**in_layer, **ONCE})
    _check_kernels(sequences, PER_SEQUENCE)
    _check_batches(attention)
    return KernelTables(
        _total(dense, in_layer),
        _total(dense, ONCE),
        _total(sequences, PER_SEQUENCE),
        _grid(attention, (0, 1)),
        _grid(attention, (2, 3)),
        _grid(attention, (0, 1, 2, 3)),
        None if uneven is None else make_skew(uneven.rows, uneven.path),
        {table.path.name: table.sha256 for table in tables},
        _about(folder),
    )


class _Table(NamedTuple):
    """A file's rows: each its labels and sizes, with the value, in the order of the file."""

    path: Path
    sha256: str
    rows: dict[tuple[Any, ...], float]


def _read(path: Path, labels: Sequence[str], sizes: Sequence[str], value: str) -> _Table:
    try:
        content = path.read_bytes()
        reader = csv.DictReader(io.StringIO(content.decode("utf-8"), newline=""))
        lines = [(reader.line_num, line) for line in reader]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigError(
            f"{path}: cannot read the kernel table: {error}; write tables:DIR, a folder with "
            "dense.csv, per_sequence.csv and attention.csv"
        ) from None
    needed = (*labels, *sizes, value)
    missing = [name for name in needed if name not in (reader.fieldnames or ())]
    if missing:
        raise ConfigError(f"{path}: no column {', '.join(missing)}; needed are {', '.join(needed)}")
    rows: dict[tuple[Any, ...], float] = {}
    for number, line in lines:
        where = f"{path}, line {number}"
        if None in line or None in line.values():
            columns = ",".join(reader.fieldnames or ())
            raise ConfigError(
                f"{where}: too {'many' if None in line else 'few'} values for the columns {columns}"
            )
        size = [_size(line[name], name, where) for name in sizes]
        key = (*(line[name] for name in labels), *size)
        if key in rows:
            raise ConfigError(f"{where}: the sizes {', '.join(map(_short, key))} stand twice")
        rows[key] = _number(line[value], value, where)
    if not rows:
        raise ConfigError(f"{path}: no rows")
    return _Table(path, hashlib.sha256(content).hexdigest(), rows)


def _size(text: str, name: str, where: str) -> float:
    try:
        size = int(text)
    except ValueError:
        size = -1
    if not 0 <= size <= LARGEST_SIZE:
        raise ConfigError(
            f"{where}: {name}={text!r} is not a whole number from 0 to {LARGEST_SIZE}"
        )
    return float(size)


def _number(text: str, name: str, where: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    least = -math.inf if name == "alpha" else 0.0
    if not (math.isfinite(number) and number >= least):
        wanted = "a number" if name == "alpha" else "a number from 0"
        raise ConfigError(f"{where}: {name}={text!r} is not {wanted}")
    return number


def _short(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _check_kernels(table: _Table, known: Iterable[str]) -> None:
    found = {kernel for kernel, _ in table.rows}
    for what, names in (("lacks", set(known) - found), ("has unknown", found - set(known))):
        if names:
            raise ConfigError(
                f"{table.path}: {what} kernels {', '.join(sorted(names))}; a layer of this model "
                f"is made of {', '.join(known)}"
            )


def _total(table: _Table, times: dict[str, int]) -> Times:
    """What kernels take together, each so many times, for every count from 0 to the last."""
    curves = []
    for kernel, often in times.items():
        counts = sorted(count for name, count in table.rows if name == kernel)
        if counts[0] < 1:
            raise ConfigError(f"{table.path}: {kernel} is measured at {counts[0]:g}, not from 1")
        curves.append(often * every_count(counts, [table.rows[kernel, n] for n in counts]))
    # Beyond its last point a kernel takes time in proportion.
    longest = max(map(len, curves))
    total = np.zeros(longest)
    for curve in curves:
        last = len(curve) - 1
        total[: last + 1] += curve
        total[last + 1 :] += curve[last] * (np.arange(last + 1, longest) / last)
    return total


def _check_batches(table: _Table) -> None:
    for size in table.rows:
        chunk, context, decodes, length = size
        if (context and not chunk) or (length and not decodes) or not (chunk or decodes):
            told = ", ".join(f"{name}={x:g}" for name, x in zip(_SIZES, size, strict=True))
            raise ConfigError(
                f"{table.path}: {told} is no batch: it has a context and nothing that reads it, "
                "or nothing at all"
            )


def _grid(table: _Table, kept: Sequence[int]) -> Grid:
    """The rows of batches that have just these sizes of `_SIZES`, as a grid."""
    prefills, decodes = 0 in kept, 2 in kept
    kind = " and ".join(["prefill"] * prefills + ["decode"] * decodes)
    rows = {
        tuple(size[i] for i in kept): time
        for size, time in table.rows.items()
        if (size[0] > 0, size[2] > 0) == (prefills, decodes)
    }
    if not rows:
        raise ConfigError(f"{table.path}: no rows of batches that {kind}")
    axes = [sorted({size[i] for size in rows}) for i in range(len(kept))]
    for i, axis in zip(kept, axes, strict=True):
        if not axis[-1]:
            raise ConfigError(f"{table.path}: {_SIZES[i]} is 0 for all batches that {kind}")
    values = np.full([len(axis) for axis in axes], math.nan)
    places = [{x: i for i, x in enumerate(axis)} for axis in axes]
    for size, time in rows.items():
        values[tuple(place[x] for place, x in zip(places, size, strict=True))] = time
    gaps = np.argwhere(np.isnan(values))
    if len(gaps):
        sizes = (f"{_SIZES[i]}={axes[k][gaps[0][k]]:g}" for k, i in enumerate(kept))
        raise ConfigError(
            f"{table.path}: {len(gaps)} combinations of sizes are missing, the first is "
            f"{', '.join(sizes)}; of batches that {kind} every combination is needed"
        )
    return Grid(axes, values)


def _about(folder: Path) -> dict[str, str]:
    """Model, machine and engine, where a meta.yaml lies in the folder or in the one above."""
    for place in (folder, folder.parent):
        try:
            text = (place / "meta.yaml").read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError):
            continue
        found = re.findall(r"^(model|hardware|vllm_version): *(\S.*?) *$", text, re.MULTILINE)
        return {key: value.strip("'\"") for key, value in found}
    return {}
