"""`DecodeRows`: which row of the device's tables each decoding request has, and what is in it.

The rows change by what changes: a steady iteration costs a few array operations, whatever runs.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schedsim.content import Content
from schedsim.executor.block_units import BlockUnits
from schedsim.request import Request
from schedsim.scheduler import Batch
from schedsim.scheduler.batch import TransferKind

WINDOW = 1024
"""Tokens of a request that are made at once, so that one by one they cost next to nothing."""

Ints = npt.NDArray[np.int32]


class TableChanges(NamedTuple):
    """What the device's block table lacks: `blocks` at the flat `indices`, no index twice."""

    indices: Ints
    blocks: Ints


NO_CHANGES = TableChanges(np.zeros(0, dtype=np.int32), np.zeros(0, dtype=np.int32))


class DecodeRows:
    """Rows 0 to `len(requests)` of a batch's decodes, and its padding members, in no order.

    `lengths` are the tokens of each row with the one that runs, `token_ids` that one, `slots` its
    place in the cache (0 for padding, which writes nothing that counts). `table` is what the
    device's block table is to hold. A request that leaves gives its row to the last one.
    """

    def __init__(
        self,
        max_rows: int,
        width: int,
        units: BlockUnits,
        content: Content,
        vocab: int,
        block_table: Callable[[Request], Sequence[int]],
        *,
        in_one_piece: bool,
    ) -> None:
        """`width` blocks are the longest context; with `in_one_piece` the first one tells all."""
        self.requests: list[Request] = []
        self.lengths = np.zeros(max_rows, dtype=np.int32)
        self.token_ids = np.zeros(max_rows, dtype=np.int32)
        self.slots = np.zeros(max_rows, dtype=np.int32)
        self.table = np.zeros((max_rows, 1 if in_one_piece else width), dtype=np.int32)
        self.in_one_piece = in_one_piece
        self._units = units
        self._content = content
        self._vocab = vocab
        self._block_table = block_table
        self._row_of: dict[int, int] = {}
        self._decodes: list[Request] = []
        self._padding: list[Request] = []
        self._is_disturbed = False  # the rows are no longer those of these
        self._advances = np.zeros(max_rows, dtype=np.int32)
        self._num_blocks = np.zeros(max_rows, dtype=np.int32)
        self._windows = np.zeros((max_rows, WINDOW), dtype=np.int32)
        self._window_starts = np.zeros(max_rows, dtype=np.int32)
        self._window_stops = np.zeros(max_rows, dtype=np.int32)
        self._known_tokens: dict[int, tuple[int, Ints]] = {}
        self._rows = np.arange(max_rows)
        self._stale: set[int] = set()

    def __len__(self) -> int:
        return len(self.requests)

    def follow(self, batch: Batch, padding: Sequence[Request]) -> TableChanges:
        """Make the rows those of `batch`, just decided; what the device's table lacks then.

        A batch without decodes changes no row, and its changes come with the next.
        """
        for request in batch.preempted:
            self._forget(request)
        for chunk in batch.prefills:
            self._forget(chunk.request)
        for request, kind, _ in batch.transfers:
            if kind is TransferKind.MOVE and request.id in self._row_of:
                self._load_blocks(self._row_of[request.id])
        if batch.is_empty or not (batch.runs_decodes or padding):
            return NO_CHANGES
        if batch.runs_decodes:
            self.lengths[: len(self)] += self._advances[: len(self)]
        changed = self._is_disturbed or batch.decodes != self._decodes
        if changed or padding != self._padding:
            self._seat(batch.decodes, padding)
        grown = self._grow()
        self._place()
        return self._changes(grown)

    def blocks_of(self, count: int) -> tuple[set[int], set[int]]:
        """The manager's blocks that the first `count` rows read, and those that they write."""
        used: set[int] = set()
        written: set[int] = set()
        size = self._units.tokens
        for row in range(count):
            last = (int(self.lengths[row]) - 1) // size
            if self.in_one_piece:
                first = int(self.table[row, 0])
                used.update(range(first, first + last + 1))
                written.add(first + last)
            else:
                used.update(self._units.blocks(self.table[row, : last + 1]))
                written.update(self._units.blocks(self.table[row, last : last + 1]))
        return used, written

    def check(self) -> None:
        """Assert that the rows hold what the books say; O(blocks)."""
        for row, request in enumerate(self.requests):
            assert self._row_of[request.id] == row, f"request {request.id} is not in row {row}"
            length = int(self.lengths[row])
            assert length == request.num_computed_tokens, f"request {request.id}: {length} tokens"
            blocks = self._units.of(self._block_table(request))[: self.table.shape[1]]
            held = self.table[row, : len(blocks)]
            known = 1 if self.in_one_piece else int(self._num_blocks[row])
            assert (held[:known] == blocks[:known]).all(), f"request {request.id}: its blocks"

    # ---- inside

    def _seat(self, decodes: Sequence[Request], padding: Sequence[Request]) -> None:
        """Give every request of the batch a row, and nobody else."""
        self._decodes, self._padding = list(decodes), list(padding)
        wanted = {request.id for request in self._decodes}
        wanted.update(request.id for request in self._padding)
        for request in [r for r in self.requests if r.id not in wanted]:
            self._forget(request)
        for request in self._decodes:
            if request.id not in self._row_of:
                self._add(request, advances=True)
        for request in self._padding:
            row = self._row_of.get(request.id)
            if row is None:
                self._add(request, advances=False)
            elif self._advances[row]:
                self._advances[row] = 0
                self.lengths[row] = request.num_computed_tokens
        self._is_disturbed = False

    def _add(self, request: Request, *, advances: bool) -> None:
        row = len(self.requests)
        self.requests.append(request)
        self._row_of[request.id] = row
        self.lengths[row] = request.num_computed_tokens
        self._advances[row] = advances
        self._window_stops[row] = self._window_starts[row] = 0
        self._load_blocks(row)

    def _forget(self, request: Request) -> None:
        row = self._row_of.pop(request.id, None)
        if row is None:
            return
        self._is_disturbed = True
        last = self.requests.pop()
        moved_from = len(self.requests)
        if last is request:
            return
        self.requests[row] = last
        self._row_of[last.id] = row
        for column in (
            self.lengths, self._advances, self._num_blocks, self._window_starts, self._window_stops,
        ):  # fmt: skip
            column[row] = column[moved_from]
        self._windows[row] = self._windows[moved_from]
        count = self._num_blocks[row]
        self.table[row, :count] = self.table[moved_from, :count]
        self._stale.add(row)

    def _load_blocks(self, row: int) -> None:
        blocks = self._units.of(self._block_table(self.requests[row]))
        blocks = blocks[: self.table.shape[1]]
        self.table[row, : len(blocks)] = blocks
        self._num_blocks[row] = len(blocks)
        self._stale.add(row)

    def _grow(self) -> list[tuple[int, int]]:
        """Take in the blocks that rows got since; (row, place) of each new one."""
        if self.in_one_piece:
            return []
        grown: list[tuple[int, int]] = []
        count = len(self)
        needed = (self.lengths[:count] - 1) // self._units.tokens
        for row in np.flatnonzero(needed >= self._num_blocks[:count]).tolist():
            known = int(self._num_blocks[row])
            if row in self._stale:
                self._load_blocks(row)
                continue
            added = self._units.from_place(self._block_table(self.requests[row]), known)
            added = added[: self.table.shape[1] - known]
            self.table[row, known : known + len(added)] = added
            self._num_blocks[row] = known + len(added)
            grown += [(row, place) for place in range(known, known + len(added))]
        return grown

    def _place(self) -> None:
        """Token and slot of every row."""
        count = len(self)
        rows = self._rows[:count]
        positions = self.lengths[:count] - 1
        for row in np.flatnonzero(positions >= self._window_stops[:count]).tolist():
            self._fill_window(row, int(positions[row]))
        self.token_ids[:count] = self._windows[rows, positions - self._window_starts[:count]]
        size = self._units.tokens
        if self.in_one_piece:
            slots = self.table[:count, 0] * size + positions
        else:
            places, offsets = np.divmod(positions, size)
            slots = self.table[rows, places] * size + offsets
        self.slots[:count] = np.where(self._advances[:count] > 0, slots, 0)

    def _fill_window(self, row: int, start: int) -> None:
        request = self.requests[row]
        first, ids = self._known_tokens.get(request.id, (0, self.token_ids[:0]))
        if not first <= start < first + len(ids):
            # Of different lengths, so that requests that began together do not refill together.
            count = WINDOW // 2 + request.id * 97 % (WINDOW // 2)
            made = self._content.token_ids(request.id, start, start + count, self._vocab)
            first, ids = start, made.astype(np.int32)
            if len(self._known_tokens) > 4 * len(self.lengths):
                kept = self._row_of.keys() & self._known_tokens.keys()
                self._known_tokens = {key: self._known_tokens[key] for key in kept}
            self._known_tokens[request.id] = (first, ids)
        self._windows[row, : len(ids)] = ids
        self._window_starts[row] = first
        self._window_stops[row] = first + len(ids)

    def _changes(self, grown: Iterable[tuple[int, int]]) -> TableChanges:
        width = self.table.shape[1]
        indices = [np.array([row * width + place for row, place in grown], dtype=np.int32)]
        for row in self._stale:
            if row < len(self):
                count = 1 if self.in_one_piece else int(self._num_blocks[row])
                indices.append(np.arange(row * width, row * width + count, dtype=np.int32))
        self._stale.clear()
        flat = np.concatenate(indices)
        return TableChanges(flat, self.table.reshape(-1)[flat])
