"""`RadixKVCache`: a radix tree of all computed tokens, as SGLang has it (RadixAttention).

Source: arXiv 2312.07104; SGLang 0.5, `mem_cache/radix_cache.py` and `managers/schedule_batch.py`.
"""

from schedsim.content import Content
from schedsim.memory.base import NOTHING, Found
from schedsim.memory.blocks import BlockTables
from schedsim.memory.paged import FreeQueue
from schedsim.memory.radix_tree import Match, Node, RadixTree
from schedsim.request import Request


class RadixKVCache(BlockTables):
    """Pages of `block_size` tokens, one in SGLang's default, found again wherever a request ends.

    A request that holds nothing begins with the longest run of pages in the tree, all but its last
    known token at most, and locks them. What a prefill computed is inserted when its iteration has
    run, what was decoded when the request gives its pages back: at its end, and when it is
    preempted (SGLang then drops decoded tokens). Where the tree has the same tokens in other pages
    by then, those of the request are given back and it goes on with the tree's. Free pages are a
    queue; when they run out the least recently used leaves that nobody locks are evicted, whole.

    At one token a page every decode takes a page in every iteration: O(decodes) an iteration.
    """

    has_prefix_cache = True

    def __init__(self, total_blocks: int, block_size: int, content: Content) -> None:
        super().__init__(total_blocks, block_size)
        self._content = content
        self._tree = RadixTree(
            lambda request_id, page: content.block_key(request_id, page, block_size)
        )
        self._free = FreeQueue(range(1, total_blocks + 1))
        # Of each request: the node with which its part of the tree ends, and pages until there.
        self._ends: dict[int, Node] = {}
        self._planned: dict[int, tuple[Request, int]] = {}
        self._lookup: tuple[int, int, int, Match] | None = None

    @property
    def free_blocks(self) -> int:
        return len(self._free) + self._tree.idle

    def find(self, request: Request) -> Found:
        match = self._match(request)
        return Found(match.pages, match.idle) if match.pages else NOTHING

    def content_key(self, request: Request, block: int) -> int | None:
        if (block + 1) * self.block_size > request.num_known_tokens:
            return None
        return self._content.block_key(request.id, block, self.block_size)

    def blocks_to_admit(self, request: Request, tokens: int) -> int:
        match = self._match(request)
        return max(self.blocks_for(tokens) - match.pages, 0) + match.idle

    def reserve(self, request: Request, tokens: int) -> bool:
        if request.id in self._tables:
            return super().reserve(request, tokens)
        if self.blocks_to_admit(request, tokens) > self.free_blocks:
            return False
        self._ends[request.id] = end = self._tree.lock(self._match(request))
        table = self._tree.blocks(end)
        need = max(self.blocks_for(tokens) - len(table), 0)
        self._tables[request.id] = table + self._take(need)
        return True

    def plan(self, request: Request, tokens: int) -> None:
        self._planned[request.id] = (request, tokens)

    def commit(self) -> int:
        merged = 0
        for request, tokens in self._planned.values():
            merged += self._keep_prefill(request, tokens // self.block_size)
        self._planned.clear()
        return merged

    def release(self, request: Request) -> int:
        if request.id in self._members:
            self.leave(request)
        table = self._tables.pop(request.id)
        self._planned.pop(request.id, None)
        end = self._ends.pop(request.id)
        pages = max(request.num_computed_tokens // self.block_size, end.stop)
        begin = end.stop
        known, _ = self._tree.insert(request.id, table[begin:pages], end)
        self._give_back(table[begin:known] + table[pages:])
        return self._tree.unlock(end)

    def check(self) -> None:
        super().check()
        assert self._ends.keys() == self._tables.keys(), "a table without its place in the tree"
        self._tree.check(list(self._ends.values()))
        blocks = list(self._free)
        for node in self._tree.nodes():
            blocks += node.blocks
        for request_id, table in self._tables.items():
            end = self._ends[request_id]
            assert table[: end.stop] == self._tree.blocks(end), "a table strays from the tree"
            match = self._tree.match(request_id, end.stop)
            assert (match.pages, match.node) == (end.stop, end), "it holds another one's tokens"
            blocks += table[end.stop :]
        assert sorted(blocks) == list(range(1, self.total_blocks + 1)), (
            "a page is lost or held twice"
        )

    def _take(self, count: int) -> list[int]:
        short = count - len(self._free)
        if short > 0:
            self._free.put(self._tree.evict(short))
        return self._free.take(count)

    def _give_back(self, table: list[int]) -> int:
        self._free.put(table)
        return 0

    def _match(self, request: Request) -> Match:
        """What the tree holds of a request that holds nothing; remembered until that changes."""
        known, version = request.num_known_tokens, self._tree.version
        lookup = self._lookup
        if lookup is None or lookup[:3] != (request.id, known, version):
            match = self._tree.match(request.id, (known - 1) // self.block_size)
            self._lookup = lookup = (request.id, known, version, match)
        return lookup[3]

    def _keep_prefill(self, request: Request, pages: int) -> int:
        """Insert the first `pages` pages; returns how many it now shares, not having before."""
        end, table = self._ends[request.id], self._tables[request.id]
        begin = end.stop
        if pages <= begin:
            return 0
        known, new_end = self._tree.insert(request.id, table[begin:pages], end)
        merged = self._tree.relock(end, new_end)
        if known > begin:
            self._give_back(table[begin:known])
            table[begin:pages] = self._tree.blocks(new_end, begin)
        self._ends[request.id] = new_end
        return merged
