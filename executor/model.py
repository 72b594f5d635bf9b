"""The decoder of the Llama and Qwen families, over a paged KV cache, for a ragged batch."""

import torch
from torch import Tensor

from schedsim.executor.attention import Attention, attention
from schedsim.executor.config import ModelConfig
from schedsim.executor.forward_batch import ForwardBatch
from schedsim.executor.kv_cache import KVStore
from schedsim.executor.rope import Rope, rotate
from schedsim.executor.weights import DecoderWeights, LayerWeights


class Decoder:
    """A model on one device: `forward` runs a batch. Holds no state of any sequence."""

    def __init__(
        self, config: ModelConfig, weights: DecoderWeights, *, attention: Attention = attention
    ) -> None:
        self.config = config
        self.weights = weights
        self.device = weights.embedding.device
        self.dtype = weights.embedding.dtype
        self._attention = attention
        self._rope = Rope(config.rope, config.shape.head_dim, self.device)

    def new_store(self, num_blocks: int, block_size: int, *, num_host_blocks: int = 0) -> KVStore:
        """A KV cache for this model, of its type and on its device.

        Raises:
            ConfigError: the memory cannot be had.
        """
        return KVStore(
            self.config.shape,
            num_blocks,
            block_size,
            num_host_blocks=num_host_blocks,
            dtype=self.dtype,
            device=self.device,
        )

    def forward(self, batch: ForwardBatch, store: KVStore) -> Tensor:
        """Logits [S, vocab] at the batch's `sampled_rows`, in the type of the weights.

        Writes the keys and values of the batch's tokens into `store`; the tokens before them must
        be there. No gradient is kept.
        """
        with torch.inference_mode():
            hidden = self.weights.embedding[batch.token_ids]
            rotation = self._rope.cos_sin(batch.positions, batch.context_lengths, self.dtype)
            for index, layer in enumerate(self.weights.layers):
                hidden = hidden + self._attend(index, layer, hidden, rotation, batch, store)
                hidden = hidden + self._mlp(layer, hidden)
            hidden = self._norm(hidden[batch.sampled_rows], self.weights.final_norm)
            return hidden @ self.weights.head.T

    def _attend(
        self,
        index: int,
        layer: LayerWeights,
        hidden: Tensor,
        rotation: tuple[Tensor, Tensor],
        batch: ForwardBatch,
        store: KVStore,
    ) -> Tensor:
        shape = self.config.shape
        heads, kv_heads = shape.heads, shape.kv_heads
        projected = layer.qkv(self._norm(hidden, layer.input_norm))
        projected = projected.view(len(hidden), heads + 2 * kv_heads, shape.head_dim)
        query, key = projected[:, :heads], projected[:, heads : heads + kv_heads]
        value = projected[:, heads + kv_heads :]
        if layer.query_norm is not None and layer.key_norm is not None:
            query = self._norm(query, layer.query_norm)
            key = self._norm(key, layer.key_norm)
        query, key = rotate(query, *rotation), rotate(key, *rotation)
        store.write(index, key, value, batch.slot_mapping)
        attended = self._attention(query, store.layers[index], batch.attention)
        return layer.output(attended.flatten(1))

    def _mlp(self, layer: LayerWeights, hidden: Tensor) -> Tensor:
        gate, up = layer.gate_up(self._norm(hidden, layer.mlp_norm)).chunk(2, dim=-1)
        return layer.down(torch.nn.functional.silu(gate) * up)

    def _norm(self, x: Tensor, weight: Tensor) -> Tensor:
        """RMS norm over the last dimension, in at least float32."""
        precise = x.to(torch.promote_types(x.dtype, torch.float32))
        mean_square = precise.pow(2).mean(-1, keepdim=True)
        return weight * (precise * torch.rsqrt(mean_square + self.config.norm_epsilon)).to(x.dtype)
