"""How many requests a second a cell bears under latency targets, by bisection."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from schedsim.experiments.ablation.burst import Cells
from schedsim.experiments.ablation.cells import (
    BUDDY,
    CONTINUOUS,
    EXACT,
    MAXIMUM,
    NAIVE,
    NOISY,
    PAGED,
    SORTED,
    SORTED_NOISY,
    STATIC,
    Cell,
    own_kernel,
)
from schedsim.experiments.ablation.setup import Candidate, Pool, Setup, settings_of
from schedsim.experiments.runs import run_policy
from schedsim.experiments.setup import prepare_trace
from schedsim.sweep.capacity import Search
from schedsim.sweep.config import CapacityConfig
from schedsim.traces.trace import Trace

SHARE = 0.9
"""Of the requests that must meet all targets."""

SPAN = 1000.0
"""The least rate that is tried is the highest one over this."""

HEADROOM = 3.0
"""The highest rate that is tried, in parts of the burst's, which has an end with few requests."""

TOLERANCE = 0.05
"""How far apart the highest rate that was borne and the lowest that was not may be."""

TARGETS_LONG = 20
"""How many times the target of the first token a run is long. Over the rate that can be borne for
ever a line grows, and in a shorter run too few would have to wait too long for it to show."""

LEAST_REQUESTS = 300

_FIGURE = "goodput.whole.share"

CAPACITY_CELLS: tuple[Cell, ...] = (
    *(own_kernel(s, m) for s in (NAIVE, STATIC, CONTINUOUS) for m in (MAXIMUM, EXACT, PAGED)),
    *(own_kernel(CONTINUOUS, m) for m in (NOISY, BUDDY)),
    *(own_kernel(SORTED, m) for m in (EXACT, PAGED)),
    own_kernel(SORTED_NOISY, PAGED),
)
"""Each memory with the kernel that it lets run: what a kernel costs is less than `TOLERANCE`."""


class Capacity(NamedTuple):
    """Requests a second in each repeat; None where even the least rate is too much."""

    candidate: Candidate
    rates: list[float | None]


class Capacities:
    """The capacities of cells that a burst has filled."""

    def __init__(self, setup: Setup, pool: Pool, draws: Sequence[Trace], filled: Cells) -> None:
        self._setup, self._pool, self._draws, self._filled = setup, pool, draws, filled

    def of(self, cell: Cell) -> Capacity:
        """The capacity of a cell in each repeat.

        It has the memory manager that was best in the burst; a static batch is at most as large as
        the naive one or as the best of the burst, whichever bears more over all draws: it takes who
        waits, so the size is only a bound.

        Raises:
            ConfigError, PolicyError: as `fill_cell`.
        """
        best = self._filled[cell].candidate
        candidates = {best}
        if cell.scheduling.is_tuned:
            naive = min(self._pool.naive_batch, best.batch_size or 1)
            candidates.add(best._replace(batch_size=naive))
        found = [self._of(cell, candidate) for candidate in sorted(candidates)]
        return max(found, key=lambda capacity: sum(map(_log, capacity.rates)))

    def _of(self, cell: Cell, candidate: Candidate) -> Capacity:
        repeats = range(len(self._draws))
        return Capacity(candidate, [self._search(cell, candidate, r) for r in repeats])

    def _search(self, cell: Cell, candidate: Candidate, repeat: int) -> float | None:
        """The highest rate at which enough requests meet the targets; None if none was found."""
        high = HEADROOM * self._filled[cell].runs[repeat].requests_per_s
        if not high:
            return None
        search = Search(
            CapacityConfig(
                setting="arrivals.rate",
                low=high / SPAN,
                high=high,
                tolerance=TOLERANCE,
                keep=[f"{_FIGURE} >= {SHARE}"],
            )
        )
        while (rate := search.next_value()) is not None:
            search.tell(rate, {_FIGURE: self._share(cell, candidate, repeat, rate)})
        return search.kept

    def _share(self, cell: Cell, candidate: Candidate, repeat: int, rate: float) -> float:
        """The requests that met the targets, in parts of all."""
        seed = self._setup.seeds[repeat]
        settings = settings_of(self._setup, self._pool, cell, candidate, seed).model_copy(
            update={"arrivals": f"poisson:rate={rate!r}"}
        )
        trace = prepare_trace(self._as_many(self._draws[repeat], rate, seed), settings)
        summary = run_policy(trace, settings).whole().summary
        share: float = summary["goodput"]["whole"]["share"]
        return share

    def _as_many(self, draw: Trace, rate: float, seed: int) -> Trace:
        """Requests for a run at `rate`: those of the draw, and the same again at random."""
        target = self._setup.engine.slo_ttft
        count = len(draw)
        if target is not None:
            count = max(math.ceil(TARGETS_LONG * target * rate), LEAST_REQUESTS)
        rng = np.random.default_rng(np.random.SeedSequence([seed, len(draw), 1]))
        more = rng.integers(0, len(draw), max(count - len(draw), 0))
        rows = np.concatenate((np.arange(len(draw)), more))[:count]
        return Trace(
            np.zeros(count), draw.prompt_tokens[rows], draw.output_tokens[rows], draw.source
        )


def _log(rate: float | None) -> float:
    return -math.inf if rate is None else math.log(rate)
