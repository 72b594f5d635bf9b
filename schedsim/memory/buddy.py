"""`BuddyKVCache`: a chunk of 2^k blocks a request, from a buddy allocator.

Source: Kwon et al., SOSP'23, section 6.1: their Orca baselines allocate with a buddy allocator for
the true output length (Oracle), this rounded up to a power of two (Pow2), or 2048 tokens (Max).
"""

from schedsim.memory.holes import BuddyChunks
from schedsim.memory.reserved import Foresight, Overrun, ReservedKVCache


class BuddyKVCache(ReservedKVCache):
    """Ranges are chunks, so what is asked for is rounded up to a power of two blocks."""

    def __init__(
        self,
        total_blocks: int,
        block_size: int,
        foresight: Foresight,
        overrun: Overrun = "move",
        host_blocks: int = 0,
    ) -> None:
        space = BuddyChunks(total_blocks)
        super().__init__(total_blocks, block_size, space, foresight, overrun, host_blocks)
