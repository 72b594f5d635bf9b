"""How much longer the attention of decodes takes where their contexts differ."""

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from schedsim.errors import ConfigError

BINS = ("n_label", "skew_rate_label", "kv_big_label", "kp_label")
"""The columns of skew_fit.csv that name a bin, beside the chunk."""

SKEW_RATIO = 4.0
"""The uneven batches that were measured have two lengths, the longer so many times the shorter."""

_LABEL = re.compile(r"[A-Za-z]+(<=|>|=)(\d+)([k%]?)")
_UNITS: dict[str, Callable[[int], float]] = {
    "": float,
    "k": lambda number: number * 1024.0,
    "%": lambda number: number / 100.0,
}

Times = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Skew:
    """How much longer decodes of uneven context take, in bins of five sizes.

    `chunks` are the prefill chunks that were measured, 0 for none; `bounds` the upper bounds of the
    bins of the other four: requests that decode, the share of them that is long, the longest
    context, and the context of the prefill. `alphas` has a value from 0 to 1 for each combination,
    0 also where none was measured.
    """

    chunks: Times
    bounds: tuple[Times, ...]
    alphas: Times

    def alpha(self, chunk: float, requests: int, share: Any, longest: Any, context: float) -> Any:
        """Of one batch, or of many: `share` and `longest` may be arrays.

        A chunk is that of the nearest one measured; a size beyond the last bin is of that bin.
        """
        at_chunk = int(np.abs(self.chunks[1:] - chunk).argmin()) + 1 if chunk else 0
        sizes = (requests, share, longest, context)
        places = [
            np.minimum(np.searchsorted(bounds, size), len(bounds) - 1)
            for bounds, size in zip(self.bounds, sizes, strict=True)
        ]
        return self.alphas[at_chunk, places[0], places[1], places[2], places[3]]


def long_share(mean: Any, longest: Any) -> Any:
    """The share of long decodes in the measured kind of batch with this mean and longest context.

    Zero or less where no share of them has so low a mean. Numbers or arrays.
    """
    return (SKEW_RATIO * mean / longest - 1.0) / (SKEW_RATIO - 1.0)


def make_skew(rows: Mapping[tuple[Any, ...], float], path: Path) -> Skew:
    """The alphas of skew_fit.csv, `path`: its rows by the labels of `BINS` and the chunk.

    Raises:
        ConfigError: a label that is none, or no row with a prefill.
    """
    bounds = [sorted({_bound(key[i], path) for key in rows}) for i in range(len(BINS))]
    chunks = sorted({0.0, *(key[-1] for key in rows)})
    if len(chunks) == 1:
        raise ConfigError(f"{path}: pc is 0 in all rows; rows with prefill are needed")
    alphas = np.zeros((len(chunks), *map(len, bounds)))
    for (*labels, chunk), alpha in rows.items():
        places = [
            axis.index(_bound(label, path)) for axis, label in zip(bounds, labels, strict=True)
        ]
        # Outside it is the noise of a quotient of two small differences.
        alphas[(chunks.index(chunk), *places)] = min(max(alpha, 0.0), 1.0)
    return Skew(np.array(chunks), tuple(map(np.array, bounds)), alphas)


def _bound(label: str, path: Path) -> float:
    """The upper bound that a label such as `kvB<=4k` or `sr>70%` tells."""
    told = _LABEL.fullmatch(label)
    if told is None:
        raise ConfigError(f"{path}: {label!r} is no label of a bin, such as n<=16 or kvB<=4k")
    return math.inf if told[1] == ">" else _UNITS[told[3]](int(told[2]))
