"""Every cell under one burst: candidates tried on all draws, the best one kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from schedsim.experiments.ablation.cells import MAXIMUM, NAIVE, STATIC, Cell
from schedsim.experiments.ablation.search import search_size
from schedsim.experiments.ablation.serving import Served, mean_log_rate, serve
from schedsim.experiments.ablation.setup import Candidate, Pool, Setup, settings_of
from schedsim.traces.trace import Trace

Runs = tuple[Served, ...]
"""A run of each repeat."""


@dataclass(frozen=True, slots=True)
class Filled:
    """A cell with its best candidate, the runs of that, and of all that were tried."""

    candidate: Candidate
    tried: Mapping[Candidate, Runs]

    @property
    def runs(self) -> Runs:
        """Those of the best candidate."""
        return self.tried[self.candidate]


Cells = dict[Cell, Filled]


def fill_cell(
    setup: Setup, pool: Pool, draws: Sequence[Trace], cell: Cell, others: Mapping[Cell, Filled]
) -> Filled:
    """Run a cell on all draws; what `others` have run already is not run again.

    Raises:
        ConfigError, PolicyError: a setting is wrong, or a run broke off.
    """
    return _Cell(setup, pool, draws, cell).fill(others)


def batch_limit(pool: Pool, setup: Setup, draws: Sequence[Trace], cell: Cell) -> int:
    """The largest static batch that there can be in a cell."""
    limit = min(setup.engine.max_seqs, *map(len, draws))
    return min(limit, pool.naive_batch) if cell.memory is MAXIMUM else limit


class _Cell:
    """One cell being filled."""

    def __init__(self, setup: Setup, pool: Pool, draws: Sequence[Trace], cell: Cell) -> None:
        self._setup, self._pool, self._draws, self._cell = setup, pool, draws, cell
        self._tried: dict[Candidate, Runs] = {}

    def fill(self, others: Mapping[Cell, Filled]) -> Filled:
        scheduling, memory, _ = self._cell
        managers = memory.managers
        if not scheduling.is_static:
            best = max(map(Candidate, managers), key=self._value)
            return Filled(best, self._tried)
        naive = self._pool.naive_batch
        limit = batch_limit(self._pool, self._setup, self._draws, self._cell)
        size = min(naive, limit)
        if scheduling.is_tuned:
            naive_cell = others.get(self._cell._replace(scheduling=NAIVE))
            if scheduling is STATIC and naive_cell is not None:
                self._tried |= naive_cell.tried
            size = search_size(lambda b: self._value(Candidate(managers[0], b)), naive, limit)
        best = Candidate(managers[0], size)
        self._value(best)
        return Filled(best, self._tried)

    def _value(self, candidate: Candidate) -> float:
        runs = self._tried.get(candidate)
        if runs is None:
            runs = self._tried[candidate] = tuple(
                serve(draw, settings_of(self._setup, self._pool, self._cell, candidate, seed))
                for draw, seed in zip(self._draws, self._setup.seeds, strict=True)
            )
        return mean_log_rate(runs)
