"""Which copies may be made while the batch before runs, and that all end where they should."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from typing import Any

from schedsim.executor.config import tiny
from schedsim.executor.kv_cache import KVStore
from schedsim.executor.transfers import BlockMover
from schedsim.request import Request
from schedsim.scheduler.batch import Chunk, Transfer, TransferKind

OUT, IN, MOVE = TransferKind.SWAP_OUT, TransferKind.SWAP_IN, TransferKind.MOVE
CONFIG = tiny(layers=2, head_dim=64, heads=2, kv_heads=1)


class Rows:
    """Rows that read blocks 1 to 4 and write 4."""

    def blocks_of(self, count: int) -> tuple[set[int], set[int]]:
        return ({1, 2, 3, 4}, {4}) if count else (set(), set())


def mover(device: str) -> BlockMover:
    store = KVStore(CONFIG.shape, 12, 16, num_host_blocks=12, device=device)
    for tier, layers in ((0, store.layers), (100, store.host_layers)):
        for number, layer in enumerate(layers):
            for block in range(13):
                layer[block] = tier + block + 1000 * number
    rows: Any = Rows()
    return BlockMover(store, rows)


def transfers(*parts: tuple[TransferKind, list[tuple[int, int]]]) -> list[Transfer]:
    request = Request(0, 0.0, 1, 1)
    return [Transfer(request, kind, pairs) for kind, pairs in parts]


def early(mover: BlockMover) -> set[tuple[TransferKind, tuple[int, int]]]:
    return {(kind, pair) for is_early, kind, pairs in mover._steps if is_early for pair in pairs}


def contents(tensors: Any, block: int) -> list[float]:
    return [float(layer[block].flatten()[0]) for layer in tensors]


def test_what_the_batch_before_writes_goes_out_after_it(device: str) -> None:
    moving = mover(device)
    moving.note_batch(4, [])
    moving.plan(transfers((OUT, [(3, 1), (4, 2)]), (IN, [(7, 3), (8, 9)])))
    assert early(moving) == {(OUT, (3, 1)), (IN, (8, 9))}  # block 3 is still read
    moving.start()
    store = moving._store
    assert contents(store.host_layers, 1) == [3, 1003]
    assert contents(store.host_layers, 2) == [4, 1004]
    assert contents(store.layers, 3) == [107, 1107]
    assert contents(store.layers, 9) == [108, 1108]


def test_what_follows_a_late_copy_is_late(device: str) -> None:
    moving = mover(device)
    moving.note_batch(4, [])
    moving.plan(transfers((OUT, [(4, 2)]), (IN, [(5, 4)]), (IN, [(2, 6)]), (OUT, [(9, 5)])))
    assert early(moving) == set()
    moving.start()
    assert contents(moving._store.layers, 4) == [105, 1105]
    assert contents(moving._store.layers, 6) == [4, 1004]
    assert contents(moving._store.host_layers, 5) == [9, 1009]


def test_a_chunk_s_blocks_are_in_use(device: str) -> None:
    moving = mover(device)
    chunk = Chunk(Request(1, 0.0, 40, 1), 10, 20)  # tokens 20 to 29 of blocks 7 and 8
    moving.note_batch(0, [(chunk, [7, 8, 9])])
    moving.plan(transfers((OUT, [(7, 1), (8, 2)]), (IN, [(3, 7), (4, 9)])))
    assert early(moving) == {(OUT, (7, 1)), (IN, (4, 9))}


def test_moves_are_made_in_order_all_sources_first(device: str) -> None:
    moving = mover(device)
    moving.note_batch(4, [])
    moving.plan(transfers((MOVE, [(2, 1), (3, 2)]), (MOVE, [(7, 3)])))
    assert early(moving) == set()
    moving.start()
    assert [contents(moving._store.layers, block)[0] for block in (1, 2, 3)] == [2, 3, 7]
