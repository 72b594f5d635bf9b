"""Tiny random models in transformers' form, and sequences that run on ours beside them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torch import Tensor

from schedsim.executor.checkpoint import load_weights
from schedsim.executor.config import load_config
from schedsim.executor.forward_batch import Segment, build_batch
from schedsim.executor.kv_cache import KVStore
from schedsim.executor.model import Decoder

torch.set_num_threads(1)

FAMILIES = {
    "llama": (transformers.LlamaConfig, transformers.LlamaForCausalLM, {}),
    "llama-biased": (
        transformers.LlamaConfig,
        transformers.LlamaForCausalLM,
        {"attention_bias": True, "mlp_bias": True, "tie_word_embeddings": True},
    ),
    "mistral": (
        transformers.MistralConfig,
        transformers.MistralForCausalLM,
        {"sliding_window": None, "head_dim": 8},
    ),
    "qwen2": (
        transformers.Qwen2Config,
        transformers.Qwen2ForCausalLM,
        {"tie_word_embeddings": True},
    ),
    "qwen3": (transformers.Qwen3Config, transformers.Qwen3ForCausalLM, {"head_dim": 24}),
}
"""Config class, model class and settings, between them every part that the decoder has."""

VOCAB = 97


def random_model(family: str, seed: int = 0, **settings: Any) -> Any:
    """A transformers model with every parameter random: norms and biases too."""
    config_class, model_class, own = FAMILIES[family]
    shape = {
        "vocab_size": VOCAB,
        "hidden_size": 64,
        "intermediate_size": 80,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "bos_token_id": None,
        "eos_token_id": None,
    }
    # transformers adds to the dictionaries it is given.
    settings = {k: dict(v) if isinstance(v, dict) else v for k, v in settings.items()}
    model = model_class(config_class(**(shape | own | settings))).eval()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.ndim == 1:
                parameter.add_(0.2 * noise)
            else:
                parameter.copy_(noise * 1.5 * parameter.shape[-1] ** -0.5)
    return model


def saved(model: Any, directory: Path, **how: Any) -> Path:
    model.save_pretrained(directory, **how)
    return directory


def loaded(directory: Path, dtype: torch.dtype = torch.float32) -> Decoder:
    config = load_config(directory)
    return Decoder(config, load_weights(directory, config, dtype=dtype))


def expected_logits(model: Any, tokens: Sequence[int]) -> Tensor:
    """What transformers says after the last of `tokens`, run at once without a cache."""
    with torch.no_grad():
        logits: Tensor = model(torch.tensor([list(tokens)]), use_cache=False).logits[0, -1]
    return logits


def relative_error(actual: Tensor, expected: Tensor) -> float:
    return float((actual - expected).norm() / expected.norm())


class Sequences:
    """Sequences by name over one KV store; the test says which blocks each one holds."""

    def __init__(
        self, decoder: Decoder, *, contiguous: bool = False, block_size: int = 4, blocks: int = 64
    ) -> None:
        self.decoder = decoder
        self.contiguous = contiguous
        self.block_size = block_size
        self.store = KVStore(
            decoder.config.shape, blocks, block_size, num_host_blocks=blocks, dtype=decoder.dtype
        )
        for layer in self.store.layers + self.store.host_layers:
            layer.fill_(torch.nan)  # whoever reads a slot that was not written gets nonsense
        self.tokens: dict[str, list[int]] = {}
        self.tables: dict[str, list[int]] = {}
        self.contexts: dict[str, int] = {}
        order = torch.randperm(blocks, generator=torch.Generator().manual_seed(1)) + 1
        self._free = list(range(blocks, 0, -1)) if contiguous else order.tolist()

    def add(self, name: str, tokens: Sequence[int], shared: Sequence[int] = ()) -> None:
        """A sequence with room for all its tokens; `shared` blocks hold its first ones already."""
        self.tokens[name] = list(tokens)
        self.contexts[name] = len(shared) * self.block_size
        need = -(-len(tokens) // self.block_size) - len(shared)
        self.tables[name] = [*shared, *self.take(need)]

    def take(self, count: int) -> list[int]:
        return [self._free.pop() for _ in range(count)]

    def run(self, **parts: int) -> dict[str, Tensor]:
        """Run so many tokens of each sequence in one batch; the logits after the last of each."""
        segments = []
        for name, count in parts.items():
            start = self.contexts[name]
            tokens = self.tokens[name][start : start + count]
            assert len(tokens) == count
            segments.append(Segment(tokens, start, self.tables[name]))
            self.contexts[name] += count
        batch = build_batch(segments, self.block_size, contiguous=self.contiguous)
        return dict(zip(parts, self.decoder.forward(batch, self.store), strict=True))
