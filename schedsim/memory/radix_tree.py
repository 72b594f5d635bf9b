"""`RadixTree`: which pages hold which token sequences, from the root on. Knows no running requests.

Source: Zheng et al., "SGLang", NeurIPS'24, arXiv 2312.07104 (RadixAttention); SGLang 0.5,
`mem_cache/radix_cache.py`.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from itertools import chain
from typing import NamedTuple

Key = Callable[[int, int], int]
"""`key(owner, page)`: a number that says what the pages [0, page] of a sequence hold."""

MAX_STALE = 64
"""Entries out of date that may stay in the heap beside two for each node."""


@dataclass(slots=True, eq=False)
class Node:
    """The pages from `start` on of the sequence of `owner`, and of all that go on from here.

    `children` stand under the key of their first page. `locks` counts the requests that use the
    node, those that use a node below it included; `used` is when it was used last.
    """

    owner: int
    start: int
    blocks: list[int]
    parent: "Node | None"
    number: int
    used: int
    locks: int = 0
    children: dict[int, "Node"] = field(default_factory=dict)

    @property
    def stop(self) -> int:
        """The first page after it."""
        return self.start + len(self.blocks)

    @property
    def is_idle_leaf(self) -> bool:
        """Whether it can be evicted."""
        return not self.locks and not self.children and self.parent is not None


class Match(NamedTuple):
    """How far the tree holds a sequence: `pages`, of which nobody uses `idle`.

    `node` holds the last of them; they end inside it if `pages` is below its `stop`.
    """

    node: Node
    pages: int
    idle: int


class RadixTree:
    """A radix tree over pages, whose idle leaves can be evicted, those used longest ago first.

    The tokens themselves are not stored: a node names a sequence that has them, and `key` tells how
    far two sequences are equal by halving. A walk is O(depth · log pages). Uses are counted, not
    timed; of leaves used at once the older node goes first.
    """

    def __init__(self, key: Key) -> None:
        self._key = key
        self._root = Node(-1, 0, [], None, 0, 0, locks=1)
        self._heap: list[tuple[int, int]] = []
        self._nodes: dict[int, Node] = {}
        self._made = 0
        self._now = 0
        self.idle = 0
        """Pages that nobody uses."""
        self.version = 0
        """Changes whenever a match may."""

    @property
    def root(self) -> Node:
        """The node of no pages."""
        return self._root

    def match(self, owner: int, limit: int, below: Node | None = None) -> Match:
        """How far the first `limit` pages of a sequence are here; changes nothing.

        Those up to the end of `below`, where it is given, are known to be, and their idle pages
        are not counted.
        """
        node = self._root if below is None else below
        pages, idle = node.stop, 0
        while pages < limit:
            child = node.children.get(self._key(owner, pages))
            if child is None:
                break
            shared = self._common(owner, child, limit)
            pages += shared
            if not child.locks:
                idle += shared
            node = child
            if pages < child.stop:
                break
        return Match(node, pages, idle)

    def lock(self, match: Match) -> Node:
        """Use the matched pages; they now end with the node that is returned."""
        node = match.node
        if match.pages < node.stop:
            node = self._split(node, match.pages - node.start)
        self._touch(node)
        self._lock(node)
        return node

    def insert(self, owner: int, blocks: list[int], below: Node) -> tuple[int, Node]:
        """Add the sequence whose pages after `below`, which holds the first, lie in `blocks`.

        Notes its use. Returns how many of its first pages were there before, in other blocks or
        these, and the node with which it ends. The rest of `blocks` belongs to the tree.
        """
        self.version += 1
        begin = below.stop
        node, pages, _ = self.match(owner, begin + len(blocks), below)
        if pages < node.stop:
            node = self._split(node, pages - node.start)
        if pages < begin + len(blocks):
            leaf = self._make(owner, pages, blocks[pages - begin :], node)
            node.children[self._key(owner, pages)] = leaf
            self.idle += len(leaf.blocks)
            node = leaf
        self._touch(node)
        return pages, node

    def relock(self, old: Node, new: Node) -> int:
        """Use `new` instead of `old`, which is above it or the same.

        Returns how many of the pages between them others used already.
        """
        self.version += 1
        used = 0
        node = new
        while node is not old:
            if node.locks:
                used += len(node.blocks)
            else:
                self.idle -= len(node.blocks)
            node.locks += 1
            assert node.parent is not None, "the old node is not above the new one"
            node = node.parent
        return used

    def unlock(self, node: Node) -> int:
        """End a use; returns how many of its pages others still use."""
        self.version += 1
        used = 0
        for part in self._path(node):
            part.locks -= 1
            if part.locks:
                used += len(part.blocks)
            else:
                self.idle += len(part.blocks)
                self._offer(part)
        return used

    def blocks(self, node: Node, begin: int = 0) -> list[int]:
        """The blocks of all pages up to the end of `node`; from `begin` on, where a node begins."""
        parts = [part.blocks for part in self._path(node) if part.start >= begin]
        return list(chain.from_iterable(reversed(parts)))

    def evict(self, count: int) -> list[int]:
        """Drop idle leaves until `count` blocks are free; there are as many idle pages."""
        self.version += 1
        freed: list[int] = []
        while len(freed) < count:
            used, number = heappop(self._heap)
            node = self._nodes.get(number)
            if node is None or not node.is_idle_leaf or used != node.used:
                continue
            parent = node.parent
            assert parent is not None, "the root is a leaf"
            freed += node.blocks
            del parent.children[self._key(node.owner, node.start)]
            del self._nodes[number]
            self._offer(parent)
        self.idle -= len(freed)
        return freed

    def nodes(self) -> Iterator[Node]:
        """Every node but the root."""
        yield from self._nodes.values()

    def check(self, users: list[Node]) -> None:
        """Assert every invariant, where `users` are the ends of all uses; O(pages)."""
        nodes = list(self.nodes())
        children = sum(len(node.children) for node in [self._root, *nodes])
        assert children == len(nodes), "nodes are lost"
        locks = dict.fromkeys(map(id, nodes), 0)
        for user in users:
            for node in self._path(user):
                locks[id(node)] += 1
        offered = set(self._heap)
        for node in nodes:
            parent = node.parent
            assert parent is not None, "a node below the root has no parent"
            assert node.blocks, "a node holds no page"
            assert node.start == parent.stop, "a node does not begin where its parent ends"
            assert parent.children[self._key(node.owner, node.start)] is node, "a misplaced child"
            if parent is not self._root:
                last = parent.stop - 1
                assert self._key(node.owner, last) == self._key(parent.owner, last), (
                    "a node goes on from another sequence"
                )
            assert node.locks == locks[id(node)], "locks are miscounted"
            assert node.used <= parent.used or parent is self._root, "used after its parent"
            if node.is_idle_leaf:
                assert (node.used, node.number) in offered, "an idle leaf is never evicted"
        assert self.idle == sum(len(n.blocks) for n in nodes if not n.locks), (
            "idle pages miscounted"
        )

    # ---- inside

    def _common(self, owner: int, node: Node, limit: int) -> int:
        """Pages of `node`, at least the first, that a sequence has in common with it."""
        key, other = self._key, node.owner
        low, high = node.start + 1, min(node.stop, limit)
        if owner == other or key(owner, high - 1) == key(other, high - 1):
            return high - node.start
        while low < high:  # the first `low` pages are equal, the first `high` are not
            middle = (low + high) // 2
            if key(owner, middle) == key(other, middle):
                low = middle + 1
            else:
                high = middle
        return low - node.start

    def _path(self, node: Node) -> Iterator[Node]:
        """From `node` up to the root, without it."""
        while node.parent is not None:
            yield node
            node = node.parent

    def _make(self, owner: int, start: int, blocks: list[int], parent: Node) -> Node:
        self._made += 1
        node = Node(owner, start, blocks, parent, self._made, self._now)
        self._nodes[self._made] = node
        return node

    def _split(self, node: Node, count: int) -> Node:
        """Give the first `count` pages of `node` a node of their own, above it."""
        self.version += 1
        parent = node.parent
        assert parent is not None, "the root holds no page to split"
        upper = self._make(node.owner, node.start, node.blocks[:count], parent)
        upper.locks, upper.used = node.locks, node.used
        parent.children[self._key(node.owner, node.start)] = upper
        node.start, node.blocks, node.parent = upper.stop, node.blocks[count:], upper
        upper.children[self._key(node.owner, node.start)] = node
        return upper

    def _touch(self, node: Node) -> None:
        self._now += 1
        for part in self._path(node):
            part.used = self._now
            self._offer(part)

    def _lock(self, node: Node) -> None:
        self.version += 1
        for part in self._path(node):
            if not part.locks:
                self.idle -= len(part.blocks)
            part.locks += 1

    def _offer(self, node: Node) -> None:
        """Let an idle leaf be evicted when its turn comes."""
        if not node.is_idle_leaf:
            return
        heappush(self._heap, (node.used, node.number))
        if len(self._heap) > 2 * len(self._nodes) + MAX_STALE:
            self._heap = [(n.used, n.number) for n in self._nodes.values() if n.is_idle_leaf]
            heapify(self._heap)
