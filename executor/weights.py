"""The parameters of a decoder: their names and shapes, and random ones from a seed.

Query, key and value projections are one matrix, and so are gate and up: one product for each.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from schedsim.executor.config import ModelConfig

TensorSource = Callable[[str, tuple[int, ...]], Tensor]
"""Gives the parameter of a Hugging Face name and shape."""


class Linear(NamedTuple):
    """`x @ weight.T + bias`, `weight` [outputs, inputs]."""

    weight: Tensor
    bias: Tensor | None

    def __call__(self, x: Tensor) -> Tensor:
        return torch.nn.functional.linear(x, self.weight, self.bias)


@dataclass(frozen=True, slots=True)
class LayerWeights:
    """One decoder layer. The rows of `qkv` are queries, keys, values; of `gate_up` gate, up."""

    input_norm: Tensor
    qkv: Linear
    query_norm: Tensor | None
    key_norm: Tensor | None
    output: Linear
    mlp_norm: Tensor
    gate_up: Linear
    down: Linear


@dataclass(frozen=True, slots=True)
class DecoderWeights:
    """All parameters. With tied embeddings `head` is `embedding` [vocab, hidden] itself."""

    embedding: Tensor
    layers: list[LayerWeights]
    final_norm: Tensor
    head: Tensor


def assemble(config: ModelConfig, source: TensorSource) -> DecoderWeights:
    """Take every parameter from `source`, once each, layer by layer."""
    shape = config.shape
    embedding = source("model.embed_tokens.weight", (shape.vocab, shape.hidden))
    layers = [_layer(config, f"model.layers.{i}", source) for i in range(shape.layers)]
    final_norm = source("model.norm.weight", (shape.hidden,))
    head = embedding
    if not shape.tied_embeddings:
        head = source("lm_head.weight", (shape.vocab, shape.hidden))
    return DecoderWeights(embedding, layers, final_norm, head)


def random_weights(
    config: ModelConfig,
    seed: int,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
) -> DecoderWeights:
    """Parameters drawn on `device`, the same for the same seed, device kind and config.

    Normal with the variance 1 / inputs of trained networks, what adds to the residual stream
    smaller by √(2 · layers), so that activations and logits are of order 1 at any depth. Norms
    are 1, biases small.
    """
    generator = torch.Generator(device=device).manual_seed(seed)
    depth = float(2 * config.shape.layers) ** -0.5

    def draw(name: str, size: tuple[int, ...]) -> Tensor:
        if name.endswith("norm.weight"):
            return torch.ones(size, dtype=dtype, device=device)
        scale = 0.02 if len(size) == 1 else size[1] ** -0.5
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            scale *= depth
        values = torch.empty(size, dtype=dtype, device=device)
        return values.normal_(0.0, scale, generator=generator)

    return assemble(config, draw)


def _layer(config: ModelConfig, prefix: str, source: TensorSource) -> LayerWeights:
    shape = config.shape
    query, key = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
    attention, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"

    def linear(names: tuple[str, ...], rows: tuple[int, ...], inputs: int, bias: bool) -> Linear:
        """The projections `names`, of `rows` rows each, as one matrix."""
        parts = [source(f"{name}.weight", (n, inputs)) for name, n in zip(names, rows, strict=True)]
        biases = [source(f"{name}.bias", (n,)) for name, n in zip(names, rows, strict=True) if bias]
        return Linear(torch.cat(parts), torch.cat(biases) if bias else None)

    def norm(name: str, size: int) -> Tensor:
        return source(f"{name}.weight", (size,))

    projections = tuple(f"{attention}.{name}_proj" for name in ("q", "k", "v"))
    gates = (f"{mlp}.gate_proj", f"{mlp}.up_proj")
    return LayerWeights(
        input_norm=norm(f"{prefix}.input_layernorm", shape.hidden),
        qkv=linear(projections, (query, key, key), shape.hidden, shape.qkv_bias),
        query_norm=norm(f"{attention}.q_norm", shape.head_dim) if shape.qk_norm else None,
        key_norm=norm(f"{attention}.k_norm", shape.head_dim) if shape.qk_norm else None,
        output=linear((f"{attention}.o_proj",), (shape.hidden,), query, shape.output_bias),
        mlp_norm=norm(f"{prefix}.post_attention_layernorm", shape.hidden),
        gate_up=linear(gates, (shape.intermediate,) * 2, shape.hidden, shape.mlp_bias),
        down=linear((f"{mlp}.down_proj",), (shape.hidden,), shape.intermediate, shape.mlp_bias),
    )
