"""`BlockUnits`: the memory manager's blocks as the kernels count them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

KERNEL_BLOCK_SIZES = (16, 32, 64, 128, 256)
"""Tokens of a block that the kernels take."""


@dataclass(frozen=True, slots=True)
class BlockUnits:
    """A manager's block is `per_block` units of `tokens` tokens each.

    One unit a block, with the block's own id, where the kernels take its size. A larger block, of
    n units, holds the keys of n units and then their values: counted through keys and values, block
    b begins at unit 2 · n · b, and a unit's values are n units further on.
    """

    tokens: int
    per_block: int

    @classmethod
    def of_size(cls, block_size: int) -> "BlockUnits | None":
        """The largest units of a block; None if the kernels take none of them."""
        if block_size in KERNEL_BLOCK_SIZES:
            return cls(block_size, 1)
        sizes = [size for size in KERNEL_BLOCK_SIZES if block_size % size == 0]
        return cls(max(sizes), block_size // max(sizes)) if sizes else None

    def of(self, table: Sequence[int]) -> npt.NDArray[np.int32]:
        """The units of a block table."""
        blocks = np.array(table, dtype=np.int32)
        if self.per_block == 1:
            return blocks
        first = blocks[:, None] * (2 * self.per_block)
        return (first + np.arange(self.per_block)).ravel().astype(np.int32)

    def from_place(self, table: Sequence[int], place: int) -> npt.NDArray[np.int32]:
        """The units of a block table from unit `place` on, the first of a block."""
        return self.of(table[place // self.per_block :])

    def blocks(self, units: npt.NDArray[np.int32]) -> list[int]:
        """The blocks that `units` belong to, one for each."""
        blocks = units if self.per_block == 1 else units // (2 * self.per_block)
        numbers: list[int] = blocks.tolist()
        return numbers
