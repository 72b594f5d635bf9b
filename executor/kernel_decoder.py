"""`KernelDecoder`: the decoder on our Triton kernels; the same weights and cache as `Decoder`."""

from dataclasses import dataclass

import torch
from torch import Tensor

from schedsim.errors import ConfigError
from schedsim.executor.config import ModelConfig
from schedsim.executor.forward_batch import ForwardBatch
from schedsim.executor.kv_cache import KVStore
from schedsim.executor.model import Decoder
from schedsim.executor.weights import DecoderWeights
from schedsim.kernels.checks import DTYPES, HEAD_DIMS
from schedsim.kernels.decode import contiguous_decode, paged_decode
from schedsim.kernels.decode_plan import DecodePlan
from schedsim.kernels.elementwise import rms_norm, silu_and_mul
from schedsim.kernels.prefill import contiguous_prefill, paged_prefill
from schedsim.kernels.prefill_plan import PrefillPlan
from schedsim.kernels.write_kv import QKNorm, write_kv


@dataclass(frozen=True, slots=True)
class KernelBatch:
    """What the kernels read of a batch, all on the device: decodes first, then chunks.

    `token_ids`, `positions`, `slots` and `context_lengths` (of a token's sequence) are [T] int64.
    Rows that pad have slot 0. `decodes` is built from the contexts of the
    first rows, a token each, whose blocks are `decode_blocks`; `chunks` says how the rows after
    them are split, `chunk_blocks` where these lie. Blocks are a table [sequences, width] int32, or
    the first blocks [sequences] int32 where each sequence lies in one piece. `sampled_rows` [S]
    int64 are the rows whose logits are wanted; None: all.
    """

    token_ids: Tensor
    positions: Tensor
    slots: Tensor
    context_lengths: Tensor
    sampled_rows: Tensor | None
    decodes: DecodePlan | None = None
    decode_blocks: Tensor | None = None
    chunks: PrefillPlan | None = None
    chunk_blocks: Tensor | None = None
    first_chunk_row: int = 0


class KernelDecoder(Decoder):
    """`Decoder` computed by `kernels/`: in bfloat16, float16 or float32, on CUDA.

    The residual stream is kept in the type of the weights. Also runs in Triton's interpreter.
    """

    def __init__(self, config: ModelConfig, weights: DecoderWeights) -> None:
        """See `check_takes` for what the kernels do not take.

        Raises:
            ConfigError: a head dimension or a type that they do not take.
        """
        super().__init__(config, weights)
        check_takes(config, self.dtype)
        self._scale = config.shape.head_dim**-0.5
        self._rotations: Tensor | None = None
        self.reach(config.shape.max_model_len)

    def reach(self, max_model_len: int) -> int:
        """Prepare for positions below `max_model_len`; before a graph is captured.

        How many are prepared, 0 if none need be: a graph is right as long as that stays the same.
        """
        if self.config.rope.kind == "dynamic":  # angles that change with the context
            return 0
        if self._rotations is None or len(self._rotations) < max_model_len:
            self._rotations = self._rotation_table(max_model_len)
        return len(self._rotations)

    def forward(self, batch: ForwardBatch, store: KVStore) -> Tensor:
        """As `Decoder.forward`; every sequence is a chunk."""
        metadata, shape = batch.attention, self.config.shape
        plan = PrefillPlan(
            metadata.query_lengths, metadata.context_lengths, shape.heads, shape.kv_heads,
            shape.head_dim, dtype=self.dtype, device=self.device,
        )  # fmt: skip
        if metadata.block_tables is not None:
            blocks = metadata.block_tables.int()
        else:
            blocks = torch.tensor(metadata.first_blocks, dtype=torch.int32).to(self.device)
        kernel_batch = KernelBatch(
            batch.token_ids, batch.positions, batch.slot_mapping, batch.context_lengths,
            batch.sampled_rows, chunks=plan, chunk_blocks=blocks,
        )  # fmt: skip
        return self.run(kernel_batch, store)

    def run(self, batch: KernelBatch, store: KVStore) -> Tensor:
        """Logits [S, vocab]; writes the batch's keys and values into `store`. Never waits."""
        shape, weights, epsilon = self.config.shape, self.weights, self.config.norm_epsilon
        rows = len(batch.token_ids)
        heads = shape.heads + 2 * shape.kv_heads
        with torch.inference_mode():
            residual = weights.embedding.index_select(0, batch.token_ids)
            cos, sin = self._cos_sin(batch)
            hidden = rms_norm(residual, weights.layers[0].input_norm, epsilon)
            for index, layer in enumerate(weights.layers):
                caches = store.caches[index]
                norm = None
                if layer.query_norm is not None and layer.key_norm is not None:
                    norm = QKNorm(layer.query_norm, layer.key_norm, epsilon)
                projected = layer.qkv(hidden).view(rows, heads, shape.head_dim)
                query = write_kv(projected, *caches, batch.slots, cos, sin, norm=norm)
                attended = layer.output(self._attended(query, caches, batch).view(rows, -1))
                hidden = rms_norm(attended, layer.mlp_norm, epsilon, residual)
                hidden = layer.down(silu_and_mul(layer.gate_up(hidden)))
                if index + 1 < len(weights.layers):
                    after = weights.layers[index + 1].input_norm
                    hidden = rms_norm(hidden, after, epsilon, residual)
            if batch.sampled_rows is not None and not len(batch.sampled_rows):
                return hidden.new_empty(0, shape.vocab)
            if batch.sampled_rows is not None:
                hidden = hidden.index_select(0, batch.sampled_rows)
                residual = residual.index_select(0, batch.sampled_rows)
            hidden = rms_norm(hidden, weights.final_norm, epsilon, residual)
            return torch.nn.functional.linear(hidden, weights.head)

    def _attended(self, query: Tensor, caches: tuple[Tensor, Tensor], batch: KernelBatch) -> Tensor:
        """Attention of all rows, [T, heads, head_dim]."""
        output = torch.empty_like(query)
        if batch.decodes is not None and batch.decode_blocks is not None:
            count = batch.decodes.num_sequences
            decode = paged_decode if batch.decode_blocks.dim() == 2 else contiguous_decode
            decode(
                query[:count], *caches, batch.decode_blocks, batch.decodes,
                scale=self._scale, output=output[:count],
            )  # fmt: skip
        if batch.chunks is not None and batch.chunk_blocks is not None:
            first = batch.first_chunk_row
            prefill = paged_prefill if batch.chunk_blocks.dim() == 2 else contiguous_prefill
            prefill(
                query[first:], *caches, batch.chunk_blocks, batch.chunks,
                scale=self._scale, output=output[first:],
            )  # fmt: skip
        return output

    def _cos_sin(self, batch: KernelBatch) -> tuple[Tensor, Tensor]:
        """Cosines and sines [T, head_dim / 2] in float32."""
        half = self.config.shape.head_dim // 2
        if self._rotations is not None:
            rotation = self._rotations.index_select(0, batch.positions)
            return rotation[:, :half], rotation[:, half:]
        cos, sin = self._rope.cos_sin(batch.positions, batch.context_lengths, torch.float32)
        return cos[:, 0, :half], sin[:, 0, :half]

    def _rotation_table(self, count: int) -> Tensor:
        """[count, head_dim] float32: cosines, then sines of every position."""
        half = self.config.shape.head_dim // 2
        positions = torch.arange(count, device=self.device)
        cos, sin = self._rope.cos_sin(positions, positions, torch.float32)
        return torch.cat((cos[:, 0, :half], sin[:, 0, :half]), dim=1)


def check_takes(config: ModelConfig, dtype: torch.dtype) -> None:
    """Refuse what the kernels do not compute.

    Raises:
        ConfigError: names the value, what they take, and the way out.
    """
    head_dim = config.shape.head_dim
    if head_dim not in HEAD_DIMS:
        raise ConfigError(
            f"head_dim {head_dim} of {config.shape.name}: the Triton kernels take "
            f"{', '.join(map(str, HEAD_DIMS))}; --attention torch takes any"
        )
    if dtype not in DTYPES:
        raise ConfigError(
            f"--dtype {str(dtype).removeprefix('torch.')}: the Triton kernels take bfloat16, "
            "float16 and float32; --attention torch takes it"
        )
