"""`ModelRunner`: performs the core's batches on a decoder. No clock of the run, no decision.

The ids fed in are those that the trace declares. Every sampled row is computed to its greedy token
all the same, because an engine pays for that; the token goes no further.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from schedsim.content import Content
from schedsim.executor.failures import not_finite, told_if_it_fails
from schedsim.executor.forward_batch import ForwardBatch, Segment, build_batch
from schedsim.executor.kv_cache import KVStore
from schedsim.executor.model import Decoder
from schedsim.executor.timer import DeviceTime, Timer
from schedsim.memory import KVCache
from schedsim.request import Request
from schedsim.scheduler import Batch
from schedsim.scheduler.batch import TransferKind

WARM_UP_TOKENS = 256
"""Tokens of the prefill that warms up."""

LOOK_AHEAD = 256
"""Tokens of a request that are made at once: one by one, a decode's would cost 50 µs each."""

_NOT_FINITE = -1  # stands for the token of a row whose logits are NaN or infinite


class _Window(NamedTuple):
    """Token ids of one request from `start` on."""

    start: int
    ids: npt.NDArray[np.int64]


class PreparedBatch(NamedTuple):
    """A batch with its tensors on the device; `forward` is None where no token runs.

    `sampling` are the requests of the sampled rows, in their order.
    """

    batch: Batch
    forward: ForwardBatch | None
    sampling: list[Request]


class LaunchedBatch(NamedTuple):
    """A batch that the device works on; `visible` will hold its tokens, None if none runs."""

    prepared: PreparedBatch
    visible: Tensor | None


class ModelRunner:
    """Runs batches of one scheduler, whose memory manager is `kv_cache`, on `decoder`.

    A running request computes its tokens [context, context + tokens) with the block table that
    `kv_cache` has for it, and samples if they reach its newest known token. A padding member of a
    static batch takes part with its last computed token once more: the same work as a decode,
    reading its own blocks; what it would write goes to the null block and its sample is dropped.
    """

    launches_ahead: ClassVar[bool] = False
    """Whether `launch` returns before the device has begun: the next batch can wait in line."""

    def __init__(
        self,
        decoder: Decoder,
        store: KVStore,
        kv_cache: KVCache,
        content: Content,
        timer: Timer,
    ) -> None:
        """`store` holds the blocks of `kv_cache`; `timer` measures the work of the device."""
        assert store.num_blocks == kv_cache.total_blocks, "store and manager differ in blocks"
        assert store.num_host_blocks == kv_cache.host_blocks, "they differ in host blocks"
        assert store.block_size == kv_cache.block_size, "store and manager differ in block size"
        self.decoder = decoder
        self.store = store
        self._kv_cache = kv_cache
        self._content = content
        self._timer = timer
        self._windows: dict[int, _Window] = {}
        self._copies = {
            TransferKind.SWAP_OUT: store.swap_out,
            TransferKind.SWAP_IN: store.swap_in,
            TransferKind.MOVE: store.copy_blocks,
        }

    @property
    def described(self) -> dict[str, Any]:
        """One way for every memory manager, and no padding."""
        return {"kernels": None, "padding": None}

    def prepare(self, batch: Batch, padding: Sequence[Request] = ()) -> PreparedBatch:
        """Everything that the host does for `batch`: token ids, block tables, tensors.

        `padding` are the scheduler's padding members. Right from the decision until the batch is
        completed.

        Raises:
            ExecutionError: no memory, or the device fails; names the iteration.
        """
        with told_if_it_fails(self.decoder.device, batch):
            segments, sampling = self._segments(batch, padding)
            forward = self._build(list(segments.values())) if segments else None
        return PreparedBatch(batch, forward, sampling)

    def launch(self, prepared: PreparedBatch) -> LaunchedBatch:
        """Give the device its work: the transfers, the model, the samples.

        Raises:
            ExecutionError: no memory, or the device fails; names the iteration.
        """
        batch = prepared.batch
        timer = self._timer
        visible = None
        with told_if_it_fails(self.decoder.device, batch):
            timer.begin()
            for _, kind, pairs in batch.transfers:
                self._copies[kind](pairs)
            if prepared.forward is not None:
                visible = self._sample(self.decoder.forward(prepared.forward, self.store))
            timer.end()
        return LaunchedBatch(prepared, visible)

    def wait(self, launched: LaunchedBatch) -> DeviceTime:
        """Return when the host can see the tokens: how long the device worked.

        Raises:
            ExecutionError: logits that are not finite, or as `launch`.
        """
        batch = launched.prepared.batch
        with told_if_it_fails(self.decoder.device, batch):
            seconds = self._timer.seconds()
            tokens = [] if launched.visible is None else launched.visible.tolist()
        for request, token in zip(launched.prepared.sampling, tokens, strict=True):
            if token == _NOT_FINITE:
                raise not_finite(batch, request, self.decoder.dtype)
        return DeviceTime(seconds, None)

    def warm_up(self) -> None:
        """Run a prefill, a decode and both in one batch, so that no iteration pays for first calls.

        Writes nothing but the null block.

        Raises:
            ExecutionError: no memory, or the device fails.
        """
        vocab = self.decoder.config.shape.vocab
        length = min(WARM_UP_TOKENS, self.decoder.config.shape.max_model_len)
        blocks = min(-(-length // self.store.block_size), self.store.num_blocks)
        length = min(length, blocks * self.store.block_size)
        table = list(range(1, blocks + 1))
        prefill = Segment([token % vocab for token in range(length)], 0, table, writes=False)
        decode = Segment([0], length - 1, table, writes=False)
        for segments in ([prefill], [decode], [prefill, decode]):
            with told_if_it_fails(self.decoder.device, None):
                self._sample(self.decoder.forward(self._build(segments), self.store)).tolist()

    def release(self) -> None:
        """Nothing here takes long to make, so nothing is kept for the next run."""

    # ---- inside

    def _segments(
        self, batch: Batch, padding: Sequence[Request]
    ) -> tuple[dict[int, Segment], list[Request]]:
        """The segment of each request that takes part, and who samples."""
        segments: dict[int, Segment] = {}
        sampling = []
        emitting = {request.id for request in [*batch.decodes, *batch.first_tokens]}
        for request, tokens, _, context in batch.expand():
            end = context + tokens
            samples = request.id in emitting
            segments[request.id] = self._segment(request, context, end, samples)
            if samples:
                sampling.append(request)
        if segments:
            for request in padding:
                last = request.num_computed_tokens - 1
                segment = self._segment(request, last, last + 1, samples=True)
                segments[request.id] = segment._replace(writes=False)
                sampling.append(request)
        self._windows = {request_id: self._windows[request_id] for request_id in segments}
        return segments, sampling

    def _segment(self, request: Request, start: int, end: int, samples: bool) -> Segment:
        window = self._windows.get(request.id)
        if window is None or start < window.start or end > window.start + len(window.ids):
            vocab = self.decoder.config.shape.vocab
            stop = max(end, start + LOOK_AHEAD)
            window = _Window(start, self._content.token_ids(request.id, start, stop, vocab))
            self._windows[request.id] = window
        token_ids = window.ids[start - window.start : end - window.start]
        return Segment(token_ids, start, self._kv_cache.block_table(request), samples)

    def _build(self, segments: Sequence[Segment]) -> ForwardBatch:
        return build_batch(segments, self.store.block_size, device=self.decoder.device)

    def _sample(self, logits: Tensor) -> Tensor:
        """The greedy token of each row, on its way to the host."""
        with torch.inference_mode():
            is_finite = torch.isfinite(logits).all(dim=-1)
            tokens = torch.where(is_finite, logits.argmax(dim=-1), _NOT_FINITE)
            return tokens.to("cpu", non_blocking=True)
