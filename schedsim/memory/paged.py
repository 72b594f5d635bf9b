"""`PagedKVCache`: any free block serves any request (vLLM, SOSP'23, section 4)."""

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

    def check(self) -> None:
        super().check()
        blocks = sorted(self._free + [b for table in self._tables.values() for b in table])
        assert blocks == list(range(1, self.total_blocks + 1)), "a block is lost or held twice"

    def _take(self, count: int) -> list[int]:
        taken = self._free[-count:]
        taken.reverse()
        del self._free[-count:]
        return taken

    def _give_back(self, table: list[int]) -> int:
        self._free += table
        return 0
