"""Random paged batches, shuffled and with poisoned blocks, for every test and benchmark."""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class PagedBatch:
    """Contexts of `lengths` tokens in shuffled blocks; what no context holds is NaN."""

    lengths: list[int]
    cache: Tensor  # [blocks, 2, block_size, kv_heads, head_dim]
    block_table: Tensor  # [sequences, width] int32; padded with block 0, all NaN
    context_lengths: Tensor  # [sequences] int32

    @property
    def keys(self) -> Tensor:
        return self.cache[:, 0]

    @property
    def values(self) -> Tensor:
        return self.cache[:, 1]

    @property
    def first_blocks(self) -> Tensor:
        """Of a batch made in order."""
        return self.block_table[:, 0].contiguous()


def paged_batch(
    lengths: list[int],
    *,
    block_size: int,
    kv_heads: int,
    head_dim: int,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    in_order: bool = False,
    seed: int = 0,
) -> PagedBatch:
    """A batch whose blocks are shuffled over the cache, or in order."""
    generator = torch.Generator().manual_seed(seed)
    counts = [-(-length // block_size) for length in lengths]
    num_blocks = sum(counts) + 1
    ids = torch.arange(1, num_blocks, dtype=torch.int32)
    if not in_order:
        ids = ids[torch.randperm(len(ids), generator=generator)]
    table = torch.zeros(len(lengths), max(counts), dtype=torch.int32)
    on_device = torch.Generator(device).manual_seed(seed)
    cache = torch.randn(
        (num_blocks, 2, block_size, kv_heads, head_dim),
        generator=on_device,
        dtype=torch.float32 if torch.device(device).type == "cpu" else dtype,
        device=device,
    ).to(dtype)
    cache[0] = float("nan")
    start = 0
    for sequence, (length, count) in enumerate(zip(lengths, counts, strict=True)):
        own = ids[start : start + count]
        table[sequence, :count] = own
        if length % block_size:
            cache[int(own[-1]), :, length % block_size :] = float("nan")
        start += count
    return PagedBatch(
        lengths=lengths,
        cache=cache,
        block_table=table.to(device),
        context_lengths=torch.tensor(lengths, dtype=torch.int32, device=device),
    )


def random_query(
    tokens: int,
    heads: int,
    head_dim: int,
    dtype: torch.dtype,
    device: torch.device | str = "cpu",
    seed: int = 1,
) -> Tensor:
    """Standard normal, [tokens, heads, head_dim]."""
    generator = torch.Generator(device).manual_seed(seed)
    query = torch.randn(tokens, heads, head_dim, generator=generator, device=device)
    return query.to(dtype)
