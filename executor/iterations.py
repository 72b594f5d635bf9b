"""`Iterations`: the device's part of a batch, replayed from a CUDA graph or launched."""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from schedsim.costs.features import Padding
from schedsim.executor.device import to_device
from schedsim.executor.graphs import MIXED_SIZES, Graphs, decode_sizes, size_for
from schedsim.executor.kernel_decoder import KernelBatch, KernelDecoder
from schedsim.executor.kernel_inputs import TABLE_STEP, ChunkInputs, KernelInputs
from schedsim.executor.kv_cache import KVStore
from schedsim.executor.mixed_room import MixedRoom
from schedsim.kernels.decode_plan import DecodePlan
from schedsim.kernels.prefill_plan import PrefillPlan, attended_at_once
from schedsim.kernels.sampling import sample

WARM_UP_ROWS = (0, 1, 2, 16)
WARM_UP_TOKENS = (1, 2, 16, 200)
"""Decodes and chunk lengths of the batches that warm up: Triton compiles a kernel anew for sizes
that are 1, divisible by 16, or neither."""


class Iterations:
    """Runs batches on `decoder`: the model and the samples, without a wait.

    Batches of decodes, and those with chunks that fit into `MIXED_SIZES`, are captured by
    `warm_up`; others are launched kernel by kernel.
    """

    def __init__(self, decoder: KernelDecoder, store: KVStore, inputs: KernelInputs) -> None:
        shape = decoder.config.shape
        self._decoder = decoder
        self._store = store
        self._inputs = inputs
        self._heads = (shape.heads, shape.kv_heads, shape.head_dim)
        self._plan = DecodePlan(
            inputs.max_rows, *self._heads, dtype=decoder.dtype, device=decoder.device
        )
        self._graphs = Graphs(decoder.device)
        self._sizes = decode_sizes(inputs.max_rows)
        self._room = MixedRoom(MIXED_SIZES, inputs, self._plan_with_room)

    @property
    def padding(self) -> Padding:
        """The sizes of the batches that are captured, and how many chunk tokens are attended to at
        once; 0 on a CPU, whose times have no such feature."""
        return Padding(
            decodes=self._sizes,
            mixed=self._room.sizes,
            chunks=self._room.chunks,
            attended=attended_at_once(*self._heads, self._decoder.dtype, self._decoder.device),
        )

    def warm_up(self) -> None:
        """Compile every kernel and capture the graphs; before the first message is sent.

        Writes nothing but the null block.
        """
        for size in reversed(self._room.sizes):
            self._graphs.capture(("mixed", size), partial(self._mixed, size))
        for size in reversed(self._sizes):
            self._graphs.capture(("decode", size), partial(self._decode, size))
        width = 1 if self._inputs.in_one_piece else TABLE_STEP
        for tokens in WARM_UP_TOKENS:
            fields, blocks = np.zeros((4, tokens), dtype=np.int64), np.zeros((1, width), np.int32)
            chunks = ChunkInputs(fields, [tokens], [tokens], blocks, [tokens - 1], [])
            for rows in WARM_UP_ROWS:
                if rows < self._inputs.max_rows:  # the chunk takes a seat, too
                    self._launch(rows, chunks, begin=lambda: None)
        if self._decoder.device.type == "cuda":
            torch.cuda.synchronize(self._decoder.device)

    def run(
        self,
        message: Tensor,
        count: int,
        chunks: ChunkInputs | None,
        begin: Callable[[], None],
    ) -> Tensor | None:
        """Launch a batch; the sampled tokens, those of decodes first. None if nobody samples.

        `message` tells of its `count` decodes and was sent. `begin` is called when the inputs are
        on their way, so that a device which waits for them has not begun. The tokens are right
        until the next `run`.
        """
        if chunks is None:
            size = size_for(self._sizes, count)
            assert size is not None, "more requests decode than there are seats"
            begin()
            return self._graphs.run(("decode", size), partial(self._decode, size))[:count]
        size = self._room.size_for(count, chunks)
        if size is None:
            return self._launch(count, chunks, begin)
        self._room.fill(size, self._inputs.rows_of(message, count), chunks)
        begin()
        sampled = self._graphs.run(("mixed", size), partial(self._mixed, size))
        return sampled[: count + len(chunks.sampled)]

    # ---- inside

    def _decode(self, size: int) -> Tensor:
        """An iteration of `size` decodes, as the message tells; the sampled tokens."""
        inputs = self._inputs
        inputs.unpack(size)
        self._plan.build(inputs.context_lengths[:size])
        token_ids, positions, slots, contexts = inputs.fields[:, :size]
        batch = KernelBatch(
            token_ids, positions, slots, contexts, None, self._plan,
            inputs.as_read(inputs.table[:size]),
        )  # fmt: skip
        return self._sample(self._decoder.run(batch, self._store))

    def _mixed(self, size: int) -> Tensor:
        """An iteration of `size` tokens, as the room is filled; the sampled tokens."""
        self._inputs.unpack(self._inputs.max_rows)
        batch = self._room.batch(size, self._plan)
        return self._sample(self._decoder.run(batch, self._store))

    def _launch(self, count: int, chunks: ChunkInputs, begin: Callable[[], None]) -> Tensor | None:
        """A batch that no graph has room for, kernel by kernel."""
        inputs, decoder = self._inputs, self._decoder
        num_sampled = count + len(chunks.sampled)
        plan = PrefillPlan(
            chunks.query_lengths, chunks.context_lengths, *self._heads,
            dtype=decoder.dtype, device=decoder.device,
        )  # fmt: skip
        sampled = [*range(count), *(count + row for row in chunks.sampled)]
        rows = to_device(sampled, inputs.device, torch.int64)
        chunk_fields = to_device(chunks.fields, inputs.device)
        blocks = to_device(chunks.blocks, inputs.device)
        begin()
        if num_sampled:
            inputs.unpack(num_sampled)
        if count:
            self._plan.build(inputs.context_lengths[:count])
        fields = torch.cat((inputs.fields[:, :count], chunk_fields), dim=1)
        token_ids, positions, slots, contexts = fields
        batch = KernelBatch(
            token_ids,
            positions,
            slots,
            contexts,
            rows,
            self._plan if count else None,
            inputs.as_read(inputs.table[:count]) if count else None,
            plan,
            inputs.as_read(blocks),
            first_chunk_row=count,
        )
        logits = decoder.run(batch, self._store)
        return self._sample(logits) if num_sampled else None

    def _sample(self, logits: Tensor) -> Tensor:
        rows = len(logits)
        return sample(logits, self._inputs.temperatures[:rows], self._inputs.seeds[:rows])

    def _plan_with_room(self, tokens: int, sequences: int) -> PrefillPlan:
        decoder = self._decoder
        return PrefillPlan.with_room(
            tokens, sequences, *self._heads, dtype=decoder.dtype, device=decoder.device
        )
