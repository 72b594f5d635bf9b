"""`MixedRoom`: fixed addresses for a batch of decodes and chunks, which a CUDA graph reads."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from schedsim.executor.device import to_device
from schedsim.executor.graphs import size_for
from schedsim.executor.kernel_decoder import KernelBatch
from schedsim.executor.kernel_inputs import ChunkInputs, KernelInputs
from schedsim.kernels.decode_plan import DecodePlan
from schedsim.kernels.prefill_plan import PrefillPlan

MAX_CHUNKS = 16
"""Chunks of a captured batch."""


class MixedRoom:
    """Room for batches of some sizes in tokens: decodes first, chunks right behind them, padding.

    The decode kernel takes the first rows, as many as there are seats; what it writes to those
    that are chunks', the prefill kernel writes again. So one size is enough for all mixtures.
    """

    def __init__(
        self,
        sizes: Sequence[int],
        inputs: KernelInputs,
        make_plan: Callable[[int, int], PrefillPlan],
    ) -> None:
        """`make_plan(tokens, sequences)` gives a plan with so much room."""
        device = inputs.device
        self.sizes = list(sizes)
        self._inputs = inputs
        self._fields = torch.zeros(4 * max(sizes), dtype=torch.int64, device=device)
        self._blocks = torch.zeros(
            MAX_CHUNKS, inputs.table.shape[1], dtype=torch.int32, device=device
        )
        self._sampled = torch.zeros(inputs.max_rows, dtype=torch.int64, device=device)
        self._plans = {size: make_plan(size, MAX_CHUNKS) for size in sizes}

    def size_for(self, count: int, chunks: ChunkInputs) -> int | None:
        """The size that a batch of `count` decodes and `chunks` is padded to; None: too large."""
        if len(chunks.query_lengths) > MAX_CHUNKS:
            return None
        return size_for(self.sizes, count + chunks.fields.shape[1])

    def fill(self, size: int, rows: npt.NDArray[np.int32], chunks: ChunkInputs) -> None:
        """Send the batch of decodes, `rows` as a message tells, and `chunks`; waits for nothing."""
        device = self._inputs.device
        lengths, token_ids, slots = rows
        count = len(lengths)
        fields = np.zeros((4, size), dtype=np.int64)
        fields[:, :count] = token_ids, lengths - 1, slots, lengths
        fields[:, count : count + chunks.fields.shape[1]] = chunks.fields
        self._fields[: 4 * size].copy_(to_device(fields.reshape(-1), device))
        height, width = chunks.blocks.shape
        self._blocks[:height, :width].copy_(to_device(chunks.blocks, device))
        sampled = np.zeros(len(self._sampled), dtype=np.int64)  # row 0 where nobody samples
        sampled[:count] = np.arange(count)
        sampled[count : count + len(chunks.sampled)] = chunks.sampled
        sampled[count : count + len(chunks.sampled)] += count
        self._sampled.copy_(to_device(sampled, device))
        self._plans[size].fill(chunks.query_lengths, chunks.context_lengths, first_row=count)

    def batch(self, size: int, plan: DecodePlan) -> KernelBatch:
        """What the kernels read of a batch of that size; `plan` is built here."""
        inputs = self._inputs
        decodes = min(size, inputs.max_rows)
        plan.build(inputs.context_lengths[:decodes])
        token_ids, positions, slots, contexts = self._fields[: 4 * size].view(4, size)
        return KernelBatch(
            token_ids,
            positions,
            slots,
            contexts,
            self._sampled[: min(size, inputs.max_rows)],
            plan,
            inputs.as_read(inputs.table[:decodes]),
            self._plans[size],
            inputs.as_read(self._blocks),
            first_chunk_row=0,
        )
