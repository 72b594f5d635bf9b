"""`BlockMover`: swaps and moves of blocks; swaps on a stream of their own, beside the model.

A batch is launched while the one before it may still run. What of its swaps that one neither reads
nor writes is copied meanwhile, the rest once it has ended; the batch itself waits for all.
"""

from collections.abc import Sequence
from typing import Any

import torch

from schedsim.executor.decode_rows import DecodeRows
from schedsim.executor.kv_cache import KVStore
from schedsim.kernels.block_copy import copy_blocks
from schedsim.scheduler.batch import Chunk, Transfer, TransferKind

Pairs = list[tuple[int, int]]


class BlockMover:
    """Makes the transfers of a batch: `plan` before the rows follow the batch, then `start`."""

    def __init__(self, store: KVStore, rows: DecodeRows) -> None:
        """`rows` are those of the batch launched last when `plan` is called."""
        self._store = store
        self._rows = rows
        make_stream: Any = torch.cuda.Stream  # torch leaves it untyped
        self._stream = make_stream(store.device) if store.device.type == "cuda" else None
        self._count = 0
        self._chunks: list[tuple[list[int], int, int]] = []
        self._steps: list[tuple[bool, TransferKind, Pairs]] = []

    def note_batch(self, count: int, chunks: Sequence[tuple[Chunk, Sequence[int]]]) -> None:
        """The batch that is launched next runs the first `count` rows and `chunks`, with blocks."""
        self._count = count
        self._chunks = []
        if self._store.num_host_blocks:
            size = self._store.block_size
            for (_, tokens, context), table in chunks:
                used = list(table[: -(-(context + tokens) // size)])
                self._chunks.append((used, context // size, len(used)))

    def plan(self, transfers: Sequence[Transfer]) -> None:
        """Say of each copy whether the batch launched last is in its way."""
        steps: list[tuple[bool, TransferKind, Pairs]] = []
        if any(transfer.kind is TransferKind.MOVE for transfer in transfers):
            self._steps = [(False, kind, pairs) for _, kind, pairs in transfers]
            return
        used, written = self._rows.blocks_of(self._count)
        for table, first, last in self._chunks:
            used.update(table)
            written.update(table[first:last])
        late_device: set[int] = set()
        late_host: set[int] = set()
        for _, kind, pairs in transfers:
            is_out = kind is TransferKind.SWAP_OUT
            early: Pairs = []
            late: Pairs = []
            for pair in pairs:
                device_block, host_block = pair if is_out else pair[::-1]
                waits = (
                    device_block in (written if is_out else used)
                    or device_block in late_device
                    or host_block in late_host
                )
                (late if waits else early).append(pair)
                if waits:
                    late_device.add(device_block)
                    late_host.add(host_block)
            steps += [(True, kind, early), (False, kind, late)]
        # Early copies depend on no late one, so all of them may go first.
        self._steps = [step for step in steps if step[0]] + [s for s in steps if not s[0]]

    def start(self) -> None:
        """Launch the copies; what the current stream is given next comes after them."""
        if self._stream is None or any(kind is TransferKind.MOVE for _, kind, _ in self._steps):
            for _, kind, pairs in self._steps:
                self._copy(kind, pairs)
            return
        model = torch.cuda.current_stream(self._store.device)
        waited = False
        with torch.cuda.stream(self._stream):
            for is_early, kind, pairs in self._steps:
                if not is_early and pairs and not waited:
                    self._stream.wait_stream(model)
                    waited = True
                self._copy(kind, pairs)
        model.wait_stream(self._stream)

    def _copy(self, kind: TransferKind, pairs: Pairs) -> None:
        store = self._store
        device, host = store.layers, store.host_layers
        if kind is TransferKind.SWAP_OUT:
            copy_blocks(device, host, pairs)
        elif kind is TransferKind.SWAP_IN:
            copy_blocks(host, device, pairs)
        elif {source for source, _ in pairs} & {target for _, target in pairs}:
            store.copy_blocks(pairs)  # by way of a copy: all sources are read before a write
        else:
            copy_blocks(device, device, pairs)
