"""`KernelRunner`: performs the core's batches by our kernels, without a wait between two of them.

What `ModelRunner` says of batches holds here too. Iterations are replayed from CUDA graphs at
padded sizes; only those with many tokens or chunks of prefill are launched kernel by kernel.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from schedsim.content import Content
from schedsim.errors import ConfigError
from schedsim.executor.block_units import KERNEL_BLOCK_SIZES, BlockUnits
from schedsim.executor.decode_rows import DecodeRows
from schedsim.executor.device_clock import DeviceClock, Stamp
from schedsim.executor.failures import not_finite, told_if_it_fails
from schedsim.executor.kept_parts import KeptParts
from schedsim.executor.kernel_decoder import KernelDecoder
from schedsim.executor.kernel_inputs import TABLE_STEP, ChunkInputs, chunk_inputs
from schedsim.executor.kv_cache import cache_bytes
from schedsim.executor.parts import DeviceParts, PartSizes
from schedsim.executor.timer import DeviceTime
from schedsim.executor.transfers import BlockMover
from schedsim.memory import KVCache
from schedsim.request import Request
from schedsim.scheduler import Batch

BATCHES_IN_TURN = 3
"""Batches whose sampled tokens have a place in pinned memory: two in flight, one being read."""


class PreparedBatch(NamedTuple):
    """A batch with what the device needs for it; `message` is None where no token runs.

    `num_rows` decodes come first. `sampling` are the requests of the sampled rows, in their order.
    """

    batch: Batch
    message: Tensor | None
    num_rows: int
    chunks: ChunkInputs | None
    sampling: list[Request]


class LaunchedBatch(NamedTuple):
    """A batch that the device works on, or will; `visible` will hold its tokens."""

    prepared: PreparedBatch
    visible: Tensor | None
    stamp: Stamp


class KernelRunner:
    """Runs batches of one scheduler, whose memory manager is `kv_cache`, on `decoder`."""

    launches_ahead: ClassVar[bool] = True
    """Whether `launch` returns before the device has begun: the next batch can wait in line."""

    def __init__(
        self,
        decoder: KernelDecoder,
        kept: KeptParts,
        kv_cache: KVCache,
        content: Content,
        clock: DeviceClock,
        *,
        max_seqs: int,
        max_model_len: int,
        workspace: int,
        temperature: float = 0.0,
        by_table: bool = False,
    ) -> None:
        """`kept` lends it the device's parts, a forward pass beside which takes `workspace` bytes.

        `temperature` 0 samples greedily; `by_table` reads by a block table even what lies in one
        piece.

        Raises:
            ConfigError: the kernels do not take its block size, or there is no memory for the
                blocks.
        """
        units = BlockUnits.of_size(kv_cache.block_size)
        if units is None:
            raise ConfigError(
                f"a block size of {kv_cache.block_size}: the Triton kernels take "
                f"{', '.join(map(str, KERNEL_BLOCK_SIZES))} and multiples of them; "
                "--attention torch takes any"
            )
        shape = decoder.config.shape
        self.decoder = decoder
        self._kv_cache = kv_cache
        self._content = content
        self._clock = clock
        self._units = units
        # Larger blocks are not consecutive units (see BlockUnits), so these go by a table.
        self._in_one_piece = kv_cache.in_one_piece and units.per_block == 1 and not by_table
        width = -(-max_model_len // units.tokens) + units.per_block
        width = -(-width // TABLE_STEP) * TABLE_STEP
        self._rows = DecodeRows(
            max_seqs, width, units, content, shape.vocab, kv_cache.block_table,
            in_one_piece=self._in_one_piece,
        )  # fmt: skip
        num_blocks, block_size = kv_cache.total_blocks, kv_cache.block_size
        sizes = PartSizes(
            num_blocks,
            block_size,
            kv_cache.host_blocks,
            max_seqs,
            table_width=self._rows.table.shape[1],
            temperature=temperature,
            positions=decoder.reach(max_model_len),
            cache_bytes=cache_bytes(shape, num_blocks, block_size, decoder.dtype),
            workspace=workspace,
        )
        self._kept = kept
        self._parts = kept.take(sizes, partial(DeviceParts, decoder, sizes))
        self.store = self._parts.store
        self._inputs = self._parts.inputs
        self._iterations = self._parts.iterations
        self._mover = BlockMover(self.store, self._rows)
        self._visible = [
            torch.zeros(max_seqs, dtype=torch.int64, pin_memory=decoder.device.type == "cuda")
            for _ in range(BATCHES_IN_TURN)
        ]
        self._turn = 0
        self._draw = 0

    @property
    def described(self) -> dict[str, Any]:
        """Its kernels, and the sizes to which its batches are padded."""
        return {
            "kernels": "contiguous" if self._in_one_piece else "paged",
            "padding": self._iterations.padding.model_dump(),
        }

    def prepare(self, batch: Batch, padding: Sequence[Request] = ()) -> PreparedBatch:
        """Everything that the host does for `batch`; right from the decision until it ended.

        `padding` are the scheduler's padding members.

        Raises:
            ExecutionError: no memory, or the device fails; names the iteration.
        """
        with told_if_it_fails(self.decoder.device, batch, keeps=self):
            if batch.transfers:
                self._mover.plan(batch.transfers)
            changes = self._rows.follow(batch, padding)
            if batch.is_empty:
                return PreparedBatch(batch, None, 0, None, [])
            count = len(self._rows) if batch.runs_decodes or padding else 0
            sampling = self._rows.requests[:count]
            chunks = None
            if batch.prefills:
                chunks = self._chunk_inputs(batch)
                sampling += chunks.sampling
            self._draw = (self._draw + 1) % 2**31
            message = self._inputs.write_message(self._rows, count, changes, self._draw)
            tables = [self._kv_cache.block_table(chunk.request) for chunk in batch.prefills]
            self._mover.note_batch(count, list(zip(batch.prefills, tables, strict=True)))
        return PreparedBatch(batch, message, count, chunks, sampling)

    def launch(self, prepared: PreparedBatch) -> LaunchedBatch:
        """Give the device its work: the transfers, the model, the samples. Does not wait.

        Raises:
            ExecutionError: no memory, or the device fails; names the iteration.
        """
        batch = prepared.batch
        visible = None
        with told_if_it_fails(self.decoder.device, batch, keeps=self):
            if batch.transfers:
                self._mover.start()
            if prepared.message is None:
                self._clock.begin()
            else:
                self._inputs.send(prepared.message)
                sampled = self._iterations.run(
                    prepared.message, prepared.num_rows, prepared.chunks, self._clock.begin
                )
                if sampled is not None:
                    self._turn = (self._turn + 1) % BATCHES_IN_TURN
                    visible = self._visible[self._turn][: len(sampled)]
                    visible.copy_(sampled, non_blocking=True)
            stamp = self._clock.end()
        return LaunchedBatch(prepared, visible, stamp)

    def wait(self, launched: LaunchedBatch) -> DeviceTime:
        """Return when the host can see the tokens: how long the device worked.

        Raises:
            ExecutionError: logits that are not finite, or as `launch`.
        """
        batch = launched.prepared.batch
        with told_if_it_fails(self.decoder.device, batch, keeps=self):
            time = self._clock.wait(launched.stamp)
        if launched.visible is not None:
            wrong = (launched.visible.numpy() < 0).nonzero()[0]
            if len(wrong):
                request = launched.prepared.sampling[wrong[0]]
                raise not_finite(batch, request, self.decoder.dtype)
        return time

    def warm_up(self) -> None:
        """Compile every kernel and capture the graphs, so that no iteration pays for first calls.

        Nothing is left to do where the parts served a run before. Writes only the null block.

        Raises:
            ExecutionError: no memory, or the device fails.
        """
        with told_if_it_fails(self.decoder.device, None, keeps=self):
            self._parts.warm_up()

    def release(self) -> None:
        """Let the next run have the parts; this one has come to its end."""
        self._kept.keep(self._parts)

    def check(self) -> None:
        """Assert that what the host keeps of the batch prepared last is what the books say."""
        self._rows.check()

    # ---- inside

    def _chunk_inputs(self, batch: Batch) -> ChunkInputs:
        return chunk_inputs(
            batch.prefills,
            batch.first_tokens,
            content=self._content,
            vocab=self.decoder.config.shape.vocab,
            units=self._units,
            block_table=self._kv_cache.block_table,
            in_one_piece=self._in_one_piece,
        )
