"""`ContiguousKVCache`: one range of blocks a request, first fit among the holes.

Sources: the systems before paging (Orca, OSDI'22; FasterTransformer), which reserve a maximum;
S³ (Jin et al., NeurIPS'23), which reserves a predicted length and doubles it when that is short;
Knuth, "The Art of Computer Programming", volume 1, section 2.5, for first fit and compaction.
"""

from schedsim.memory.holes import Holes, Range
from schedsim.memory.reserved import Foresight, Overrun, ReservedKVCache


class ContiguousKVCache(ReservedKVCache):
    """Any run of free blocks will do; the first that is long enough is taken.

    With `compaction`, all ranges are slid down when a request finds no hole though enough is free
    in total. That copies every block that lies too high, in the order of their places.
    """

    def __init__(
        self,
        total_blocks: int,
        block_size: int,
        foresight: Foresight,
        overrun: Overrun = "move",
        compaction: bool = False,
        host_blocks: int = 0,
    ) -> None:
        self._holes = Holes(total_blocks)
        super().__init__(total_blocks, block_size, self._holes, foresight, overrun, host_blocks)
        self._compaction = compaction

    def _gather(self) -> bool:
        """O(n log n) for n requests, and the copies."""
        if not self._compaction:
            return False
        place = 1
        for request_id, held in sorted(self._held.items(), key=lambda item: item[1].start):
            if held.start != place:
                moved = Range(place, held.size)
                self._note_move(self._holders[request_id], held, moved)
                self._held[request_id] = moved
            place += held.size
        self._holes.gather()
        return True
