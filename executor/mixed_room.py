"""`MixedRoom`: fixed addresses for a batch of decodes and chunks, which a CUDA graph reads."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch

from schedsim.executor.device import to_device
from schedsim.executor.kernel_decoder import KernelBatch
from schedsim.executor.kernel_inputs import ChunkInputs, KernelInputs
from schedsim.kernels.decode_plan import DecodePlan
from schedsim.kernels.prefill_plan import PrefillPlan

LEAST_CHUNKS = 16
TOKENS_A_CHUNK = 32
"""A captured batch has room for so many chunks, and for one in so many of its tokens."""


def chunks_of(size: int) -> int:
    """The chunks for which a captured batch of `size` tokens has room."""
    return max(LEAST_CHUNKS, size // TOKENS_A_CHUNK)


class MixedRoom:
    """Room for batches of some sizes in tokens: decodes first, chunks right behind them, padding.

    `sizes` ascend; `chunks` are the most chunks of a batch of each.

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
        self.chunks = [chunks_of(size) for size in sizes]
        self._inputs = inputs
        self._fields = torch.zeros(4 * max(sizes), dtype=torch.int64, device=device)
        self._blocks = torch.zeros(
            max(self.chunks), inputs.table.shape[1], dtype=torch.int32, device=device
        )
        self._sampled = torch.zeros(inputs.max_rows, dtype=torch.int64, device=device)
        self._plans = {size: make_plan(size, chunks_of(size)) for size in sizes}

    def size_for(self, count: int, chunks: ChunkInputs) -> int | None:
        """The smallest size with room for the tokens and the chunks of a batch of `count` decodes
        and `chunks`; None: there is none."""
        tokens, num_chunks = count + chunks.fields.shape[1], len(chunks.query_lengths)
        rooms = zip(self.sizes, self.chunks, strict=True)
        return next((size for size, room in rooms if size >= tokens and room >= num_chunks), None)

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
            inputs.as_read(self._blocks[: chunks_of(size)]),
            first_chunk_row=0,
        )
