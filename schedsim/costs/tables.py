"""`tables:DIR`: step time from per-layer kernel tables, linear between the measured sizes."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from schedsim.costs.base import PartsAhead, Seconds, decode_contexts
from schedsim.costs.interpolation import Grid
from schedsim.costs.models import ModelSpec
from schedsim.costs.skew import long_share
from schedsim.costs.table_files import KernelTables, read_tables
from schedsim.errors import ConfigError
from schedsim.results.step_log import StepLog
from schedsim.scheduler.batch import BatchShape
from schedsim.specs import Spec, build_from_spec

_PARAMETER = re.compile(r"(.+),([a-z_]+)=([^/,]*)")

LARGEST_GRAPH = 1 << 16
"""More tokens than any engine captures."""


@dataclass(frozen=True, slots=True)
class TableOptions:
    """`directory` holds the tables.

    `graphs` is the largest CUDA graph of the engine in tokens, 0 for none: a batch up to there runs
    padded to the next captured size. `skew` corrects the decodes' attention for uneven contexts.
    """

    directory: str
    graphs: int = 0
    skew: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.graphs <= LARGEST_GRAPH:
            raise ConfigError(f"tables: graphs={self.graphs} is not from 0 to {LARGEST_GRAPH}")


class PrefillSize(NamedTuple):
    """A prefill as the tables know it: one chunk after its context."""

    chunk: float
    context: float


class TablesCost:
    """The kernels of an iteration one after the other, each as long as it was measured alone.

    layers · (products, norms and activation at the batch's tokens + attention) + embedding and last
    norm at its tokens + output projection and sampler at its sequences. Attention was measured for
    one chunk, for decodes of one length, and for both, so several chunks are looked up as
    `one_chunk` and decodes at the mean of their contexts; with `skew` their time lies a share alpha
    of the way from there to where all have the longest context.

    Padding of a static batch costs what decodes cost. Swaps and moves are not in the tables and
    take no time. Sizes beyond those measured: see `Grid`.
    """

    def __init__(self, options: TableOptions, layers: int, tables: KernelTables) -> None:
        """`layers` of the model; what is read in `tables` follows from `options`."""
        self.options, self.layers, self.tables = options, layers, tables
        self._tokens: list[float] = (layers * tables.layer + tables.once).tolist()
        self._sequences: list[float] = tables.sequences.tolist()
        self._padded = padded_sizes(options.graphs)

    def seconds(self, shape: BatchShape) -> float:
        """Seconds of an iteration; 0 if it only copies blocks."""
        decodes = shape.decode_requests + shape.padding_requests
        if not shape.prefill_requests:
            if not decodes:
                return 0.0
            attention = self._decode_attention(shape, decodes)
        elif not decodes:
            attention = self.tables.prefill.at(*one_chunk(shape))
        else:
            attention = self._mixed_attention(shape, decodes)
        return (self._fixed(shape, decodes) + self.layers * attention) * 1e-6

    def parts_ahead(self, shape: BatchShape, iterations: int) -> PartsAhead:
        """All of it on the device; only attention changes while nobody joins or leaves."""
        decodes = shape.decode_requests + shape.padding_requests
        contexts = decode_contexts(shape, iterations) / decodes
        attention = self.tables.decode.along((decodes,), contexts)
        skew = self.tables.skew
        if skew is not None:
            longest = shape.longest_context + np.arange(iterations, dtype=np.float64)
            uneven = longest > contexts
            longest = np.maximum(longest, contexts)
            alpha = skew.alpha(0.0, decodes, long_share(contexts, longest), longest, 0.0)
            most = self.tables.decode.along((decodes,), longest)
            attention = np.where(uneven, attention + alpha * (most - attention), attention)
        return PartsAhead(0.0, (self._fixed(shape, decodes) + self.layers * attention) * 1e-6, 0.0)

    def describe(self) -> dict[str, Any]:
        """The options, what was read and of what it is."""
        return {
            "name": "tables",
            "directory": self.options.directory,
            "graphs": self.options.graphs,
            "skew": self.options.skew,
            "layers": self.layers,
            "sha256": self.tables.files,
            "about": self.tables.about,
        }

    def beyond(self, steps: StepLog) -> list[str]:
        """Notes, if batches of a run are larger than what was measured, or copied blocks."""
        column, tables = steps.column, self.tables
        decodes = column("decode_requests") + column("padding_requests")
        contexts = column("context_tokens") + column("decode_requests") + column("padding_context")
        mean = contexts / np.maximum(decodes, 1)
        tokens, prefills = column("prefill_tokens"), column("prefill_requests")
        chunk, context = _as_one_chunk(column)
        only_decode, only_prefill = prefills == 0, decodes == 0
        mixed = ~only_decode & ~only_prefill
        alone, beside = tables.prefill.axes + tables.decode.axes, tables.mixed.axes
        sizes: dict[str, tuple[Any, float]] = {
            "tokens": (tokens + decodes, len(tables.layer) - 1),
            "sequences": (prefills + decodes, len(tables.sequences) - 1),
            "prefill tokens without decodes": (chunk[only_prefill], alone[0][-1]),
            "prefill tokens beside decodes": (chunk[mixed], beside[0][-1]),
            "context of prefills without decodes": (context[only_prefill], alone[1][-1]),
            "context of prefills beside decodes": (context[mixed], beside[1][-1]),
            "decodes without a prefill": (decodes[only_decode], alone[2][-1]),
            "decodes beside a prefill": (decodes[mixed], beside[2][-1]),
            "mean context of decodes without a prefill": (mean[only_decode], alone[3][-1]),
            "mean context of decodes beside a prefill": (mean[mixed], beside[3][-1]),
        }
        found = []
        for name, (values, measured) in sizes.items():
            most = float(values.max(initial=0))
            if most > measured:
                found.append(f"{name} up to {most:,.0f} (measured up to {measured:,.0f})")
        notes = []
        if found:
            notes.append(f"step times go beyond the kernel tables: {', '.join(found)}")
        copied = int(column("swapped_blocks").sum() + column("copied_blocks").sum())
        if copied:
            notes.append(
                f"{copied} blocks were swapped or moved in no time: the kernel tables "
                "hold no copies"
            )
        return notes

    def _fixed(self, shape: BatchShape, decodes: int) -> float:
        """All but attention, in microseconds."""
        tokens = shape.prefill_tokens + decodes
        if tokens < len(self._padded):
            tokens = self._padded[tokens]
        sequences = shape.prefill_requests + decodes
        return _at_count(self._tokens, tokens) + _at_count(self._sequences, sequences)

    def _decode_attention(self, shape: BatchShape, decodes: int) -> float:
        mean = (shape.decode_context + shape.padding_context) / decodes
        return self._uneven(self.tables.decode, (decodes,), mean, shape, PrefillSize(0.0, 0.0))

    def _mixed_attention(self, shape: BatchShape, decodes: int) -> float:
        mean = (shape.decode_context + shape.padding_context) / decodes
        prefill = one_chunk(shape)
        return self._uneven(self.tables.mixed, (*prefill, decodes), mean, shape, prefill)

    def _uneven(
        self,
        grid: Grid,
        sizes: Sequence[float],
        mean: float,
        shape: BatchShape,
        prefill: PrefillSize,
    ) -> float:
        """Attention of decodes of this mean context, corrected for the longest if that is on."""
        attention = grid.at(*sizes, mean)
        skew, longest = self.tables.skew, float(shape.longest_context)
        if skew is None or longest <= mean:
            return attention
        share = long_share(mean, longest)
        alpha = skew.alpha(prefill.chunk, int(sizes[-1]), share, longest, prefill.context)
        return attention + float(alpha) * (grid.at(*sizes, longest) - attention)


def one_chunk(shape: BatchShape) -> PrefillSize:
    """The one chunk that stands for those of a batch: itself, if there is only one.

    Several share a kernel, whose work is the pairs of query and key. The one has as many: all their
    tokens after the context that makes it so, or, where they have fewer pairs than all tokens in
    one prompt, a shorter prompt.
    """
    if shape.prefill_requests == 1:
        return PrefillSize(shape.prefill_tokens, shape.prefill_context)
    tokens, pairs = shape.prefill_tokens, shape.prefill_attention
    context = pairs / tokens - tokens / 2
    return PrefillSize(tokens, context) if context >= 0 else PrefillSize(math.sqrt(2 * pairs), 0.0)


def _as_one_chunk(column: Callable[[str], npt.NDArray[Any]]) -> tuple[Seconds, Seconds]:
    """`one_chunk` of every row of a step log: chunks and their contexts; 0 and 0 of no prefill."""
    tokens, pairs = column("prefill_tokens"), column("prefill_attention")
    context = pairs / np.maximum(tokens, 1) - tokens / 2
    is_one = column("prefill_requests") == 1
    context = np.where(is_one, column("prefill_context"), context)
    return np.where(context >= 0, tokens, np.sqrt(2 * pairs)), np.maximum(context, 0.0)


def padded_sizes(largest: int) -> list[int]:
    """The size of the CUDA graph that runs 0, 1, 2 … tokens, up to the largest captured.

    vLLM captures 1, 2 and 4, then every 8 below 256 and every 16 from there, up to the smallest of
    twice its seats, its token budget and 512. Source: `_set_cudagraph_sizes` of its `VllmConfig`.
    """
    captured = [1, 2, 4, *range(8, 256, 8), *range(256, largest + 1, 16)]
    padded = [0]
    for size in captured:
        if size <= largest:
            padded += [size] * (size + 1 - len(padded))
    return padded


def _at_count(times: list[float], count: int) -> float:
    """The time of a count; beyond the last in proportion."""
    last = len(times) - 1
    return times[count] if count <= last else times[last] * (count / last)


def parse_tables(text: str) -> TableOptions:
    """The options of a spec `tables:DIR` or `tables:DIR,key=value…`; parameters stand at the end.

    Raises:
        ConfigError: no directory, an unknown parameter or one given twice, or a wrong value.
    """
    path = text.partition(":")[2].strip()
    parameters: dict[str, str] = {}
    while found := _PARAMETER.fullmatch(path):  # a folder's own name may have commas as well
        path, key, value = found.groups()
        if key in parameters:
            raise ConfigError(f"{key!r} stands twice in {text!r}")
        parameters[key] = value
    if not path:
        raise ConfigError(
            f"--step-time {text}: write tables:DIR or tables:DIR,graphs=512; DIR is a folder of "
            "kernel tables"
        )
    return build_from_spec("step-time model", TableOptions, Spec("tables", parameters, path))


def load_tables(options: TableOptions, model: ModelSpec, tensor_parallel: int) -> TablesCost:
    """Read the tables of `options` for a model of this shape.

    Raises:
        ConfigError: as `read_tables`; the model has no gated MLP; or several GPUs share it, whose
            communication no table holds.
    """
    if tensor_parallel > 1:
        raise ConfigError(
            f"--step-time tables with --tensor-parallel {tensor_parallel}: kernel tables hold no "
            "communication between GPUs; leave it at 1"
        )
    if not model.gated_mlp:
        raise ConfigError(
            f"--step-time tables with --model {model.name}: its MLP has two matrices, the kernels "
            "of the tables are those of a gated one"
        )
    tables = read_tables(options.directory, qk_norm=model.qk_norm, skew=options.skew)
    return TablesCost(options, model.layers, tables)
