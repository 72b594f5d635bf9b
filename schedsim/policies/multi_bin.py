"""`multi-bin` and `multi-bin-continuous`: batches of requests of similar predicted length.

Source: Guldogan et al., "Multi-Bin Batching for Increasing LLM Inference Throughput",
arXiv 2412.04504: bins of equal probability, batches of a fixed size from one bin, formed batches
first come first served. Checked in the abstract and introduction, the rest is from notes. The
continuous form is not theirs: it asks what is left of the gain without static batches.
Needs to know: predicted outputs; the static form also output limits.
"""

import math
from bisect import bisect_right, insort
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from typing import ClassVar, NamedTuple

from schedsim.errors import ConfigError
from schedsim.policies.base import UNTIL_AN_EVENT, Policy, while_full
from schedsim.policies.preemptive import predicted_output
from schedsim.policies.static import Static
from schedsim.request import Request
from schedsim.scheduler.step import Step


class Binning:
    """Which bin a prediction falls into: by given edges, or of equal mass over those seen so far.

    An edge belongs to the bin above it. Without edges an assignment is O(n), a list move.
    """

    __slots__ = ("_bins", "_edges", "_seen")

    def __init__(self, policy: str, bins: int, edges: str) -> None:
        if bins < 1:
            raise ConfigError(f"policy {policy!r}: bins={bins} is below 1")
        try:
            self._edges = [float(edge) for edge in edges.split("/")] if edges else []
        except ValueError:
            self._edges = [0.0, 0.0]
        if not all(low < high for low, high in pairwise([0.0, *self._edges, math.inf])):
            raise ConfigError(
                f"policy {policy!r}: edges={edges!r} must be rising numbers of tokens, as 64/256"
            )
        if edges and len(self._edges) != bins - 1:
            raise ConfigError(
                f"policy {policy!r}: edges={edges!r} make {len(self._edges) + 1} bins, not "
                f"bins={bins}"
            )
        self._bins = bins
        self._seen: list[float] = []

    def assign(self, request: Request) -> int:
        """The bin of a request that arrives, from 0."""
        prediction = predicted_output(request)
        if self._edges:
            return bisect_right(self._edges, prediction)
        seen = self._seen
        insort(seen, prediction)
        return (bisect_right(seen, prediction) - 1) * self._bins // len(seen)


class _Batch(NamedTuple):
    """A batch that was formed and waits for the engine."""

    formed: float
    bin: int
    size: int


@dataclass(slots=True)
class MultiBin(Static):
    """`static`, with batches from one of `bins` bins of predicted length.

    A batch is formed when a bin holds `batch_size` requests that are in none, or, of fewer, when
    the first of them has waited `max_wait` seconds. The empty engine takes the batch that was
    formed first; what does not fit of it is the next batch, and who is preempted waits in its bin
    for another. `edges` are the bounds of the bins in tokens, as 64/256/1024; without them bins
    hold equal shares of the predictions seen so far.
    """

    name: ClassVar[str] = "multi-bin"

    max_wait: float = 1.0
    bins: int = 4
    edges: str = ""

    _binning: Binning = field(init=False, repr=False)
    _bin_of: dict[int, int] = field(default_factory=dict, init=False, repr=False)
    _formed: deque[_Batch] = field(default_factory=deque, init=False, repr=False)
    _open: list[list[float]] = field(init=False, repr=False)  # arrivals, of each bin
    _batch: _Batch = field(default=_Batch(0.0, 0, 0), init=False, repr=False)

    def __post_init__(self) -> None:
        Static.__post_init__(self)
        self._binning = Binning(self.name, self.bins, self.edges)
        self._open = [[] for _ in range(self.bins)]

    def accept(self, request: Request, step: Step) -> bool:
        """As `static`; whoever is taken gets a bin."""
        if not Static.accept(self, request, step):
            return False
        self._bin_of[request.id] = self._binning.assign(request)
        return True

    def next_batch(self, step: Step) -> int:
        """The batch that was formed first."""
        self._close_overdue(step.now)
        if not self._formed:
            return 0
        self._batch = self._formed.popleft()
        return self._batch.size

    def left_over(self, requests: int) -> None:
        """They are the next batch."""
        if requests:
            self._formed.appendleft(self._batch._replace(size=requests))

    def group(self, request: Request) -> int:
        """Its bin."""
        return self._bin_of[request.id]

    def group_key(self, group: int) -> bool:
        """The bin of the batch that begins goes first."""
        return group != self._batch.bin

    def wake_at(self, step: Step) -> float | None:
        """When the first batch is formed by waiting."""
        firsts = [waiting[0] for waiting in self._open if waiting]
        return min(firsts) + self.max_wait if firsts else None

    def steady(self, step: Step) -> int:
        """As long as the batch runs."""
        return UNTIL_AN_EVENT

    def on_arrival(self, request: Request, step: Step) -> None:
        """It may complete a batch."""
        number = self._bin_of[request.id]
        waiting = self._open[number]
        waiting.append(request.arrival)
        if len(waiting) >= self.batch_size:
            self._formed.append(_Batch(step.now, number, len(waiting)))
            waiting.clear()

    def on_preempt(self, request: Request, step: Step) -> None:
        """It is in no batch any more."""
        insort(self._open[self._bin_of[request.id]], request.arrival)

    def on_finish(self, request: Request, step: Step) -> None:
        """It is forgotten."""
        del self._bin_of[request.id]

    def _close_overdue(self, now: float) -> None:
        """Form the batch whose first member has waited longest, if it is due before all others."""
        overdue = [
            (waiting[0] + self.max_wait, number)
            for number, waiting in enumerate(self._open)
            if waiting and waiting[0] + self.max_wait <= now
        ]
        if not overdue:
            return
        formed, number = min(overdue)
        if not self._formed or formed < self._formed[0].formed:
            self._formed.appendleft(_Batch(formed, number, len(self._open[number])))
            self._open[number].clear()


@dataclass(slots=True)
class MultiBinContinuous(Policy):
    """`vllm` that admits from one bin of predicted length at a time.

    It stays with a bin for `turn` admissions or until nobody of it waits, then the one of whoever
    waits longest has its turn. `bins` and `edges` as in `multi-bin`. Admission takes the blocks of
    all known tokens.
    """

    name: ClassVar[str] = "multi-bin-continuous"

    turn: int = 8
    bins: int = 4
    edges: str = ""

    _binning: Binning = field(init=False, repr=False)
    _bin_of: dict[int, int] = field(default_factory=dict, init=False, repr=False)
    _current: int | None = field(default=None, init=False, repr=False)
    _left: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.turn < 1:
            raise ConfigError(f"policy {self.name!r}: turn={self.turn} is below 1")
        self._binning = Binning(self.name, self.bins, self.edges)

    def accept(self, request: Request, step: Step) -> bool:
        """Everybody; each gets a bin."""
        self._bin_of[request.id] = self._binning.assign(request)
        return True

    def group(self, request: Request) -> int:
        """Its bin."""
        return self._bin_of[request.id]

    def group_key(self, group: int) -> bool:
        """The bin whose turn it is goes first, the others are equal."""
        return group != self._current

    def reservation(self, request: Request, tokens: int) -> int:
        """All known tokens."""
        return request.num_known_tokens

    def steady(self, step: Step) -> int:
        """While there is no room for anybody."""
        return while_full(step)

    def on_admit(self, request: Request, step: Step) -> None:
        """The turn of its bin goes on, or begins."""
        number = self._bin_of[request.id]
        if number != self._current:
            self._current, self._left = number, self.turn
        self._left -= 1
        if not self._left:
            self._current = None

    def on_finish(self, request: Request, step: Step) -> None:
        """It is forgotten."""
        del self._bin_of[request.id]
