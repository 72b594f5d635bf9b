"""`PagedKVCache`: any free block serves any request (vLLM, SOSP'23, section 4)."""

from collections.abc import Iterable, Iterator, Mapping
from itertools import islice

import numpy as np

from schedsim.memory.blocks import BlockTables


class PagedKVCache(BlockTables):
    """Blocks from one free list, in vLLM 0.33's order without prefix caching.

    The free list is a stack: a request's blocks come back tail first and are the first to go out
    again.
    """

    def __init__(self, total_blocks: int, block_size: int, host_blocks: int = 0) -> None:
        super().__init__(total_blocks, block_size, host_blocks)
        self._free = list(range(total_blocks, 0, -1))

    @property
    def free_blocks(self) -> int:
        return len(self._free)

    def shuffle_free(self, rng: np.random.Generator) -> None:
        """Put the free blocks in any order, as in an engine that has run for long.

        A new one hands out neighbours, which are read a little faster.
        """
        self._free = rng.permutation(self._free).tolist()

    def check(self) -> None:
        super().check()
        check_conservation(self._free, self._tables, self.total_blocks)

    def _take(self, count: int) -> list[int]:
        taken = self._free[-count:]
        taken.reverse()
        del self._free[-count:]
        return taken

    def _give_back(self, table: list[int]) -> int:
        self._free += table
        return 0


class FreeQueue:
    """Blocks in line: taken from the front, many at once, and put to the end."""

    def __init__(self, blocks: Iterable[int]) -> None:
        self._blocks = list(blocks)
        self._front = 0

    def __len__(self) -> int:
        return len(self._blocks) - self._front

    def __iter__(self) -> Iterator[int]:
        return islice(self._blocks, self._front, None)

    def take(self, count: int) -> list[int]:
        """The first `count`; there are as many."""
        begin = self._front
        self._front = end = begin + count
        taken = self._blocks[begin:end]
        if end > 1024 and 2 * end > len(self._blocks):
            del self._blocks[:end]
            self._front = 0
        return taken

    def put(self, blocks: Iterable[int]) -> None:
        """Append them in this order."""
        self._blocks += blocks


class QueuedKVCache(BlockTables):
    """Paged as vLLM 0.11: the free list is a queue, and blocks come back to its end, tail first."""

    def __init__(self, total_blocks: int, block_size: int, host_blocks: int = 0) -> None:
        super().__init__(total_blocks, block_size, host_blocks)
        self._free = FreeQueue(range(1, total_blocks + 1))

    @property
    def free_blocks(self) -> int:
        return len(self._free)

    def check(self) -> None:
        super().check()
        check_conservation(self._free, self._tables, self.total_blocks)

    def _take(self, count: int) -> list[int]:
        return self._free.take(count)

    def _give_back(self, table: list[int]) -> int:
        self._free.put(reversed(table))
        return 0


def check_conservation(
    free: Iterable[int], tables: Mapping[int, list[int]], total_blocks: int
) -> None:
    """Assert that every block is free or in one table, once."""
    blocks = sorted([*free, *(block for table in tables.values() for block in table)])
    assert blocks == list(range(1, total_blocks + 1)), "a block is lost or held twice"
