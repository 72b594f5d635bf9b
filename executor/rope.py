"""Rotary positions (RoFormer, arXiv 2104.09864) with the scaling variants that configs name.

Frequencies are float32, computed in the order of transformers' operations: at position 100,000 a
last-bit difference in a frequency is an angle of 0.006.
"""

import math

import torch
from torch import Tensor

from schedsim.executor.config import RopeConfig


class Rope:
    """Cosines and sines for tokens at given positions; holds the frequencies of `config`."""

    def __init__(self, config: RopeConfig, head_dim: int, device: torch.device) -> None:
        self.config = config
        exponents = torch.arange(0, head_dim, 2, dtype=torch.float32, device=device) / head_dim
        self._exponents = exponents
        self._frequencies = _scaled_frequencies(config, exponents)

    def cos_sin(
        self, positions: Tensor, context_lengths: Tensor, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        """Two tensors [T, 1, head_dim] for tokens at `positions` [T].

        `context_lengths` [T] counts the tokens of each token's sequence, those of this forward
        included. Only dynamic scaling reads it: its frequencies follow the context. Keys stored
        under a shorter context keep their angles, as in transformers, so beyond `max_model_len`
        the result depends on how the prompt was cut into chunks.
        """
        frequencies = self._frequencies
        if self.config.kind == "dynamic":
            frequencies = self._dynamic_frequencies(context_lengths)
        angles = positions[:, None].float() * frequencies
        angles = torch.cat((angles, angles), dim=-1)[:, None]
        factor = self.config.attention_factor
        return (angles.cos() * factor).to(dtype), (angles.sin() * factor).to(dtype)

    def _dynamic_frequencies(self, context_lengths: Tensor) -> Tensor:
        """Dynamic NTK: the base grows with the context once it exceeds `max_model_len`; [T, d/2].

        A base for each token, since the sequences of a batch have contexts of their own.
        """
        config = self.config
        lengths = context_lengths.clamp(min=config.max_model_len).float()
        head_dim = 2 * len(self._exponents)
        growth = (config.factor * lengths / config.max_model_len) - (config.factor - 1)
        base = config.theta * growth ** (head_dim / (head_dim - 2))
        return 1.0 / base[:, None] ** self._exponents


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate the pairs (i, i + head_dim/2) of `x` [T, heads, head_dim]."""
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat((-second, first), dim=-1) * sin


def _scaled_frequencies(config: RopeConfig, exponents: Tensor) -> Tensor:
    frequencies = 1.0 / config.theta**exponents
    if config.kind == "linear":
        return frequencies / config.factor
    if config.kind == "llama3":
        return _llama3(config, frequencies)
    if config.kind == "yarn":
        return _yarn(config, exponents)
    return frequencies


def _llama3(config: RopeConfig, frequencies: Tensor) -> Tensor:
    """Llama 3.1: long waves are stretched, short ones stay, those between are interpolated."""
    wavelengths = 2 * math.pi / frequencies
    longest_kept = config.trained_len / config.high_freq_factor
    shortest_stretched = config.trained_len / config.low_freq_factor
    stretched = frequencies / config.factor
    band = config.high_freq_factor - config.low_freq_factor
    smooth = (config.trained_len / wavelengths - config.low_freq_factor) / band
    between = (1 - smooth) * stretched + smooth * frequencies
    scaled = torch.where(wavelengths > shortest_stretched, stretched, between)
    return torch.where(wavelengths < longest_kept, frequencies, scaled)


def _yarn(config: RopeConfig, exponents: Tensor) -> Tensor:
    """YaRN (arXiv 2309.00071): a ramp over the dimensions from kept to stretched frequencies."""
    powers = config.theta**exponents
    kept, stretched = 1.0 / powers, 1.0 / (config.factor * powers)
    head_dim = 2 * len(exponents)

    def dimension(rotations: float) -> float:
        """The dimension that turns `rotations` times over the trained length."""
        turns = config.trained_len / (rotations * 2 * math.pi)
        return head_dim * math.log(turns) / (2 * math.log(config.theta))

    low, high = dimension(config.beta_fast), dimension(config.beta_slow)
    if config.truncate:
        low, high = float(math.floor(low)), float(math.ceil(high))
    low, high = max(low, 0.0), min(high, float(head_dim - 1))
    high += 0.001 if low == high else 0.0  # a ramp without length has no slope
    dimensions = torch.arange(len(exponents), dtype=torch.float32, device=exponents.device)
    ramp = ((dimensions - low) / (high - low)).clamp(0, 1)
    return stretched * ramp + kept * (1 - ramp)
