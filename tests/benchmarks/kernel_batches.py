"""The batches that the attention kernels are timed on, in one pool of random keys and values."""

import random
from dataclasses import dataclass

import torch
from torch import Tensor

KV_HEADS, HEAD_DIM = 8, 128
TOKEN_BYTES = 2 * KV_HEADS * HEAD_DIM * 2  # keys and values, bfloat16
CACHES = 4
CACHE_TOKENS = 2**18


def ragged_lengths() -> list[int]:
    """256 lengths from 16 to 4096 that fall off like Zipf's, 182k tokens, in random order."""
    lengths = [20000 / (rank + 1) ** 0.8 for rank in range(256)]
    for _ in range(20):
        scale = 182_000 / sum(lengths)
        lengths = [min(4096.0, max(16.0, length * scale)) for length in lengths]
    random.Random(1).shuffle(lengths)
    return [int(length) for length in lengths]


DECODES = {
    "1×32768": [32768],
    "8×8192": [8192] * 8,
    "32×2048": [2048] * 32,
    "128×1024": [1024] * 128,
    "256×512": [512] * 256,
    "256 ragged": ragged_lengths(),
}

PREFILLS = {"1×4096": [4096], "1×16384": [16384], "8×2048": [2048] * 8}


@dataclass
class Pool:
    """`CACHES` caches of `CACHE_TOKENS` tokens, 1 GiB each: used in turn, none stays in the L2."""

    data: Tensor

    @classmethod
    def random(cls) -> "Pool":
        shape = (CACHES, CACHE_TOKENS, 2, KV_HEADS, HEAD_DIM)
        return cls(torch.randn(shape, device="cuda", dtype=torch.bfloat16))

    def caches(self, index: int, block_size: int) -> tuple[Tensor, Tensor]:
        """Keys and values [blocks, block_size, KV_HEADS, HEAD_DIM], the pool's `index`-th."""
        cache = self.data[index % CACHES].view(-1, 2, block_size, KV_HEADS, HEAD_DIM)
        return cache[:, 0], cache[:, 1]


def block_table(lengths: list[int], block_size: int, *, shuffled: bool = True) -> Tensor:
    """A table of disjoint blocks, shuffled over the whole cache or one after the other."""
    num_blocks = CACHE_TOKENS // block_size
    generator = torch.Generator().manual_seed(block_size)
    ids = torch.randperm(num_blocks, generator=generator) if shuffled else torch.arange(num_blocks)
    counts = [-(-length // block_size) for length in lengths]
    table = torch.zeros(len(lengths), max(counts), dtype=torch.int32)
    start = 0
    for sequence, count in enumerate(counts):
        table[sequence, :count] = ids[start : start + count].int()
        start += count
    return table.cuda()
