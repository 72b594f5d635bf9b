"""The head shapes and types that the attention kernels are tested with, everywhere the same."""

from typing import NamedTuple

import torch


class Case(NamedTuple):
    """Heads and a cache; `batch` of tests.kernels.batches makes data for it."""

    heads: int
    kv_heads: int
    head_dim: int
    block_size: int
    dtype: torch.dtype

    def __str__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.heads}x{self.kv_heads}x{self.head_dim}-block{self.block_size}-{dtype}"


def interpreted() -> list[Case]:
    """bfloat16 arithmetic is wrong in the interpreter; the GPU tests have it."""
    half, single = torch.float16, torch.float32
    return [
        Case(8, 2, 64, 16, half),
        Case(4, 4, 80, 32, single),
        Case(2, 1, 96, 128, half),
        Case(7, 1, 128, 64, single),
        Case(4, 2, 256, 256, half),
        Case(32, 1, 64, 16, single),
    ]


def compiled() -> list[Case]:
    """One of each kind: group sizes from 1 to 64, all head dimensions, all types."""
    brain, half, single = torch.bfloat16, torch.float16, torch.float32
    return [
        Case(32, 8, 128, 16, brain),
        Case(32, 8, 128, 128, brain),
        Case(8, 8, 64, 64, half),
        Case(28, 4, 80, 16, brain),
        Case(16, 8, 96, 16, half),
        Case(16, 1, 256, 64, brain),
        Case(64, 1, 128, 16, brain),
        Case(8, 2, 128, 16, single),
        Case(8, 2, 256, 16, single),
    ]


def measured() -> list[Case]:
    """On the GPU: the compiled ones, and every block size."""
    sizes = [Case(32, 8, 128, block_size, torch.bfloat16) for block_size in (32, 64, 256)]
    return [*compiled(), *sizes, Case(16, 8, 128, 16, torch.bfloat16)]
