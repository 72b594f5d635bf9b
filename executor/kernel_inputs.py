"""`KernelInputs`: the tensors that a batch's kernels read, at fixed addresses on the device.

Decodes come as one short message (`kernels/decode_inputs.py`), chunks as one array behind them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from schedsim.content import Content
from schedsim.executor.block_units import BlockUnits
from schedsim.executor.decode_rows import DecodeRows, TableChanges
from schedsim.executor.device import to_device
from schedsim.kernels.decode_inputs import HEADER, ROW_FIELDS, decode_inputs, message_words
from schedsim.request import Request
from schedsim.scheduler.batch import Chunk

MAX_CHANGES = 16384
"""Changes of the block table that a message holds; of more, the whole table is copied."""

MESSAGES_IN_TURN = 2
"""One that the device may still read, and one that the host writes."""

TABLE_STEP = 16
"""Chunks' tables are as wide as a multiple of this, so that few shapes are compiled."""


@dataclass(frozen=True, slots=True)
class ChunkInputs:
    """What the kernels read of the chunks of a batch, on the host.

    `fields` [4, tokens] int64 are token ids, positions, slots and context lengths; `blocks` int32
    [chunks, width] names their blocks, padded with the null block, or with `in_one_piece` the first
    one of each; `sampled` are the rows among the chunks' that sample, `sampling` whose they are.
    """

    fields: npt.NDArray[np.int64]
    query_lengths: list[int]
    context_lengths: list[int]
    blocks: npt.NDArray[np.int32]
    sampled: list[int]
    sampling: list[Request]


class KernelInputs:
    """Inputs of batches of up to `max_rows` decodes and samples.

    `fields` [4, max_rows] int64 are the decodes' token ids, positions, slots and context lengths.
    """

    def __init__(
        self,
        max_rows: int,
        table_width: int,
        *,
        temperature: float,
        device: torch.device,
    ) -> None:
        """`table_width` 1 with `in_one_piece` sequences, else units of the longest context."""

        def zeros(*size: int, dtype: torch.dtype = torch.int64) -> Tensor:
            return torch.zeros(size, dtype=dtype, device=device)

        self.max_rows = max_rows
        self.device = device
        self.in_one_piece = table_width == 1
        self.fields = zeros(4, max_rows)
        self.context_lengths = zeros(max_rows, dtype=torch.int32)
        self.seeds = zeros(max_rows)
        self.table = zeros(max_rows, table_width, dtype=torch.int32)
        self.temperatures = torch.full((max_rows,), temperature, device=device)
        self._message = zeros(message_words(max_rows, MAX_CHANGES), dtype=torch.int32)
        self._hosts = [
            torch.zeros(len(self._message), dtype=torch.int32, pin_memory=device.type == "cuda")
            for _ in range(MESSAGES_IN_TURN)
        ]
        self._turn = 0

    def clear(self) -> None:
        """Forget all messages; the device must have read them."""
        for tensor in (
            self.fields, self.context_lengths, self.seeds, self.table, self._message, *self._hosts
        ):  # fmt: skip
            tensor.zero_()
        self._turn = 0

    def write_message(
        self, rows: DecodeRows, count: int, changes: TableChanges, draw: int
    ) -> Tensor:
        """The message for the first `count` of `rows`, in pinned memory, as short as it can be.

        Right until MESSAGES_IN_TURN more were written.
        """
        self._turn = (self._turn + 1) % MESSAGES_IN_TURN
        host = self._hosts[self._turn]
        words = host.numpy()
        num_changes = len(changes.indices)
        if num_changes > MAX_CHANGES:
            self.table[:count].copy_(to_device(rows.table[:count], self.device))
            num_changes = 0
        words[0], words[1], words[2] = count, num_changes, draw
        first, stride = HEADER, self.max_rows
        for field in (rows.lengths, rows.token_ids, rows.slots):
            words[first : first + count] = field[:count]
            first += stride
        if num_changes:
            words[first : first + 2 * num_changes : 2] = changes.indices
            words[first + 1 : first + 2 * num_changes : 2] = changes.blocks
        return host[: message_words(stride, num_changes)]

    def send(self, message: Tensor) -> None:
        """Copy a message to the device without waiting."""
        self._message[: len(message)].copy_(message, non_blocking=True)

    def unpack(self, rows: int) -> None:
        """Have the device spread the message over the first `rows` rows; may be captured."""
        decode_inputs(
            self._message, self.fields, self.context_lengths, self.seeds, self.table, rows=rows
        )

    def as_read(self, table: Tensor) -> Tensor:
        """A table of blocks as the kernels take it: its only column for sequences in one piece."""
        return table[:, 0] if self.in_one_piece else table

    def rows_of(self, message: Tensor, count: int) -> npt.NDArray[np.int32]:
        """Context lengths, token ids and slots [3, count] of a message, on the host."""
        words: npt.NDArray[np.int32] = message.numpy()
        rows = words[HEADER : HEADER + ROW_FIELDS * self.max_rows]
        return rows.reshape(ROW_FIELDS, self.max_rows)[:, :count]


def chunk_inputs(
    chunks: Sequence[Chunk],
    first_tokens: Sequence[Request],
    *,
    content: Content,
    vocab: int,
    units: BlockUnits,
    block_table: Callable[[Request], Sequence[int]],
    in_one_piece: bool,
) -> ChunkInputs:
    """What the kernels read of prefill chunks; O(tokens + blocks)."""
    samples = {request.id for request in first_tokens}
    ids, positions, slots, contexts, tables = [], [], [], [], []
    sampled: list[int] = []
    sampling: list[Request] = []
    total = 0
    for request, tokens, context in chunks:
        end = context + tokens
        table = units.of(block_table(request))
        place = np.arange(context, end)
        ids.append(content.token_ids(request.id, context, end, vocab))
        positions.append(place)
        slots.append(table[place // units.tokens].astype(np.int64) * units.tokens)
        slots[-1] += place % units.tokens
        contexts.append(np.full(tokens, end))
        tables.append(table[: -(-end // units.tokens)])
        total += tokens
        if request.id in samples:
            sampled.append(total - 1)
            sampling.append(request)
    fields = np.stack([np.concatenate(parts) for parts in (ids, positions, slots, contexts)])
    width = 1
    if not in_one_piece:
        longest = max(len(table) for table in tables)
        width = -(-longest // TABLE_STEP) * TABLE_STEP
    blocks = np.zeros((len(tables), width), dtype=np.int32)
    for row, table in enumerate(tables):
        blocks[row, : len(table)] = table[:width]
    return ChunkInputs(
        fields,
        [chunk.tokens for chunk in chunks],
        [chunk.context + chunk.tokens for chunk in chunks],
        blocks,
        sampled,
        sampling,
    )
