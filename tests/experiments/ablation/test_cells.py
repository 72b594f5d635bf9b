"""The cells: all combinations, the same bytes in each, and which nobody can build."""

from collections import Counter
from itertools import product

import pytest

from schedsim.experiments.ablation.burst import fill_cell
from schedsim.experiments.ablation.capacity import CAPACITY_CELLS
from schedsim.experiments.ablation.cells import (
    CONTINUOUS,
    KERNELS,
    MAXIMUM,
    MEMORIES,
    NAIVE,
    PAGED,
    SCHEDULINGS,
    STATIC,
    Cell,
    all_cells,
    own_kernel,
)
from schedsim.experiments.ablation.measuring import DEVICE_CELLS
from schedsim.experiments.ablation.questions import QUESTIONS
from schedsim.experiments.ablation.setup import Candidate, settings_of
from schedsim.experiments.setup import prepare_run
from tests.experiments.ablation.small import SMALL, prepared

READY = prepared()


def test_every_combination_is_a_cell_once() -> None:
    cells = list(all_cells())
    assert len(cells) == 5 * 5 * 2
    assert Counter(cells) == Counter(Cell(*c) for c in product(SCHEDULINGS, MEMORIES, KERNELS))
    assert len(set(map(str, cells))) == len(cells)


def test_paged_memory_with_a_contiguous_kernel_is_counterfactual_and_nothing_else() -> None:
    odd = [cell for cell in all_cells() if cell.is_counterfactual]
    assert odd == [Cell(scheduling, PAGED, "contiguous") for scheduling in SCHEDULINGS]
    assert not any(cell.is_counterfactual for cell in (*DEVICE_CELLS, *CAPACITY_CELLS))
    told = [q for q in QUESTIONS if q.over.is_counterfactual or q.under.is_counterfactual]
    assert [("counterfactual" in q.text) for q in told] == [True]
    assert own_kernel(CONTINUOUS, PAGED).kernel == "paged"


def test_at_least_ten_cells_are_for_a_device_and_each_only_once() -> None:
    assert len(set(DEVICE_CELLS)) == len(DEVICE_CELLS) >= 10
    for kernel in KERNELS:  # so that each can be simulated by what the others measured
        assert len([cell for cell in DEVICE_CELLS if cell.kernel == kernel]) >= 3


@pytest.mark.parametrize("cell", list(all_cells()), ids=str)
def test_every_cell_has_the_same_bytes_and_nothing_beside_them(cell: Cell) -> None:
    for manager in cell.memory.managers:
        size = 2 if cell.scheduling.is_static else None
        settings = settings_of(SMALL, READY.pool, cell, Candidate(manager, size), 0)
        scheduler = prepare_run(READY.draws[0], settings).backend._scheduler
        kv_cache = scheduler.kv_cache
        assert kv_cache.total_blocks * kv_cache.block_size == 120 * 16
        assert kv_cache.host_blocks == 0
        assert kv_cache.free_blocks == READY.pool.blocks
        assert not kv_cache.has_prefix_cache
        assert (settings.token_budget, settings.max_seqs) == (2048, 16)
        assert settings.step_time == SMALL.step_time(cell.kernel)


def test_who_knows_what() -> None:
    known = {
        (cell.scheduling.name, cell.memory.name): cell.predictors
        for cell in all_cells()
        if cell.kernel == "paged"
    }
    assert known["continuous", "paged"] == ("none", None)
    assert known["continuous", "buddy"] == ("oracle", None)
    assert known["static", "noisy length"] == ("noisy", None)
    assert known["static, by length", "maximum"] == ("oracle", None)
    assert known["static, by length", "exact length"] == ("oracle", None)
    assert known["static, by length", "noisy length"] == ("oracle", "noisy")
    assert known["static, by noisy length", "noisy length"] == ("noisy", None)
    assert known["static, by noisy length", "exact length"] == ("noisy", "oracle")


def test_a_size_is_not_run_twice_for_naive_and_tuned_static() -> None:
    naive, tuned = own_kernel(NAIVE, MAXIMUM), own_kernel(STATIC, MAXIMUM)
    cells = {naive: fill_cell(SMALL, READY.pool, READY.draws, naive, {})}
    assert cells[naive].candidate.batch_size == READY.pool.naive_batch == 4
    cells[tuned] = fill_cell(SMALL, READY.pool, READY.draws, tuned, cells)
    (candidate,) = cells[naive].tried
    assert cells[tuned].tried[candidate] is cells[naive].tried[candidate]
    assert max(c.batch_size or 0 for c in cells[tuned].tried) == 4, "no more maxima fit"
