"""The columnar `Trace`: one array a column, a million requests in a few megabytes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from schedsim.errors import TraceError

FloatColumn = npt.NDArray[np.float64]
IntColumn = npt.NDArray[np.int64]
TokenColumn = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class TraceSource:
    """Where a trace came from and what became of its rows: read = kept + the sum of dropped."""

    name: str
    format: str
    sha256: str | None = None
    rows_read: int = 0
    dropped: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PromptBlocks:
    """What the prompts share: for each request a chain of block hash ids, as one ragged array.

    Request i has `ids[offsets[i]:offsets[i + 1]]`; equal chains up to a block mean equal tokens up
    to its end. Ids are global to the trace. A last id may stand for a partial block.
    """

    block_size: int
    offsets: IntColumn
    ids: IntColumn


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """A request trace as columns of equal length, ordered by arrival.

    `arrival` is in seconds, non-decreasing, from 0; `has_arrivals` is false where the source holds
    lengths alone (then `arrival` is all zero and a run needs an arrival process). `prompt_tokens`
    and `output_tokens` are at least 1. `parent` is the row whose answer a request waits for (-1:
    none; always an earlier row) and `think_s` the time between; a request with a parent is released
    by the closed loop, and its `arrival` says only when it came in the recording. `session` and
    `tenant` are small ids, -1 for none; `tenant_names` names the tenants.

    Raises:
        TraceError: columns of different lengths or values outside these rules.
    """

    arrival: FloatColumn
    prompt_tokens: TokenColumn
    output_tokens: TokenColumn
    source: TraceSource
    has_arrivals: bool = True
    max_output_tokens: TokenColumn | None = None
    session: IntColumn | None = None
    parent: IntColumn | None = None
    think_s: FloatColumn | None = None
    tenant: IntColumn | None = None
    tenant_names: tuple[str, ...] = ()
    priority: IntColumn | None = None
    ttft_slo: FloatColumn | None = None
    tpot_slo: FloatColumn | None = None
    predicted_output: FloatColumn | None = None
    blocks: PromptBlocks | None = None

    def __post_init__(self) -> None:
        check_columns(self)

    def __len__(self) -> int:
        return len(self.arrival)


COLUMNS = (
    "arrival",
    "prompt_tokens",
    "output_tokens",
    "max_output_tokens",
    "session",
    "parent",
    "think_s",
    "tenant",
    "priority",
    "ttft_slo",
    "tpot_slo",
    "predicted_output",
)


def check_columns(trace: Trace) -> None:
    """Check every rule of `Trace`; called by its constructor.

    Raises:
        TraceError: names the column and the first row that breaks a rule.
    """
    raise NotImplementedError
