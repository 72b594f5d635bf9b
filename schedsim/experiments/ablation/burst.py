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
        size = self._batch_size(others) if scheduling.is_static else None
        for manager in managers:
            self._value(Candidate(manager, size))

        def rank(candidate: Candidate) -> tuple[float, int, int]:
            """The smaller batch of equally good ones, then the plainer manager."""
            place = managers.index(candidate.manager)
            return -self._value(candidate), candidate.batch_size or 0, place

        return Filled(min(self._tried, key=rank), self._tried)

    def _batch_size(self, others: Mapping[Cell, Filled]) -> int:
        """Searched with the first manager; the others are tried at the size that is found."""
        scheduling, memory, _ = self._cell
        naive = self._pool.naive_batch
        limit = batch_limit(self._pool, self._setup, self._draws, self._cell)
        if not scheduling.is_tuned:
            return min(naive, limit)
        naive_cell = others.get(self._cell._replace(scheduling=NAIVE))
        if scheduling is STATIC and naive_cell is not None:
            self._tried |= naive_cell.tried
        first = memory.managers[0]
        return search_size(lambda size: self._value(Candidate(first, size)), naive, limit)

    def _value(self, candidate: Candidate) -> float:
        runs = self._tried.get(candidate)
        if runs is None:
            runs = self._tried[candidate] = tuple(
                serve(draw, settings_of(self._setup, self._pool, self._cell, candidate, seed))
                for draw, seed in zip(self._draws, self._setup.seeds, strict=True)
            )
        return mean_log_rate(runs)
