"""`KVCache`: the contract of every memory manager. Knows requests and blocks, not policies."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import ClassVar, NamedTuple

from schedsim.request import Request

BlockPairs = list[tuple[int, int]]
"""Blocks to copy: (source, target) each."""


class Move(NamedTuple):
    """Blocks of `request` that came to lie elsewhere, to be copied all at once."""

    request: Request
    pairs: BlockPairs


class MemoryUse(NamedTuple):
    """What the token slots of a memory are used for; the rest of them are free for anyone.

    `stored` hold tokens; `reserved` are held for tokens that are to come, as far as the manager
    foresees them; `internal_waste` are the other slots of held blocks. `external_waste` are free
    slots that the request refused last cannot have because they are not in one piece.
    `failed_though_enough` counts the reservations, since the beginning, that found no room as it
    was although enough was free in total.
    """

    stored: int
    reserved: int
    internal_waste: int
    external_waste: int
    failed_though_enough: int


class Found(NamedTuple):
    """What the cache holds of a request's beginning: `blocks`, of which `idle` nobody holds."""

    blocks: int
    idle: int


NOTHING = Found(0, 0)


class KVCache(ABC):
    """Hands out physical blocks of `block_size` token slots; the scheduler is its only caller.

    Ids run from 1 to `total_blocks`; 0 is the null block of an executor's block table. A request
    either holds what it asked for with `reserve`, or is a *decode member* (`join` to `leave` or
    `release`): then it takes one more slot in every iteration that runs the decode set, and the
    manager knows by itself when that needs a block. Such an iteration is: `needy` says who lacks a
    slot, `grow` or `grow_all` gives it, `advance` says that all members use theirs.

    A manager that keeps computed blocks for others (`has_prefix_cache`) is also told what the
    iteration that is planned computes: a chunk by `plan`, decodes by `grow` and `grow_all`. Then
    `commit` says that the iteration is decided.

    A manager that moves blocks (`moves_blocks`) may do so in any call that gives room and succeeds;
    `take_moves` follows each of these calls.
    """

    has_prefix_cache: ClassVar[bool] = False
    """Whether `find` may find something; the methods that it needs are not called otherwise."""

    decodes_ahead: bool = False
    """Whether a decode may be planned while the token that it feeds in is in flight.

    Then what a block that it fills holds is not known yet, and others can find it one decision
    later. Set by the scheduler.
    """

    has_stale_keys: bool = False
    """Whether `find` may find what was never computed; only good for comparing decisions."""

    moves_blocks: ClassVar[bool] = False
    """Whether `take_moves` may return something; it is not called otherwise."""

    reserves_growth: ClassVar[bool] = False
    """Whether admission takes room for tokens to come, so that decodes need no free blocks.

    With others a decode takes a free block, any of them: `can_grow_all` compares their numbers.
    """

    in_one_piece: ClassVar[bool] = False
    """Whether the blocks of a request are always consecutive."""

    host_blocks: int = 0
    """Blocks of the host tier, numbered from 1; 0: nothing can be swapped out."""

    def __init__(self, total_blocks: int, block_size: int) -> None:
        self.total_blocks = total_blocks
        self.block_size = block_size

    @property
    def num_swapped(self) -> int:
        """Requests that wait with their tokens in the host tier."""
        return 0

    @property
    @abstractmethod
    def free_blocks(self) -> int:
        """Blocks that nobody holds."""

    def blocks_for(self, tokens: int) -> int:
        """Blocks that hold `tokens` tokens of one request."""
        return -(-tokens // self.block_size)

    def blocks_to_admit(self, request: Request, tokens: int) -> int:
        """Free blocks that `reserve` would take for a `request` that holds nothing."""
        return self.blocks_for(tokens)

    def blocks_to_finish(self, request: Request, tokens: int) -> int:
        """The most blocks that `request`, which holds nothing, may hold before `tokens` are there.

        What needs more than there are can never run.
        """
        return self.blocks_for(tokens)

    def use(self, stored_tokens: int) -> MemoryUse:
        """How the slots are used, of which `stored_tokens` hold tokens of requests; O(1)."""
        held = (self.total_blocks - self.free_blocks) * self.block_size
        return MemoryUse(stored_tokens, 0, held - stored_tokens, 0, 0)

    def find(self, request: Request) -> Found:
        """What `reserve` would give a `request` that holds nothing of what is computed already."""
        return NOTHING

    def content_key(self, request: Request, block: int) -> int | None:
        """A number that says what the first `block + 1` blocks of a sequence hold.

        None if nothing is kept for others, or the known tokens of `request` do not fill them.
        """
        return None

    @abstractmethod
    def reserve(self, request: Request, tokens: int) -> bool:
        """Give `request` room for `tokens` tokens in all; False, and no change, if there is none.

        Never shrinks. `request` is not a decode member. If it holds nothing, its first blocks are
        those that `find` finds.
        """

    def plan(self, request: Request, tokens: int) -> None:  # noqa: B027 (most need not know)
        """The iteration computes a chunk after which the first `tokens` tokens are there.

        Others can find them from now on: they are computed before anything reads them.
        """

    def relying_on(self, request: Request, others: Iterable[Request]) -> list[Request]:
        """Those of `others` that hold a block which only the planned iteration of `request` fills.

        They cannot run without it.
        """
        return []

    def settle(self, request: Request) -> None:  # noqa: B027 (most need not know)
        """All that `request`, no longer a decode member, has computed is known now."""

    def commit(self) -> int:
        """The planned iteration is decided: it runs before anything that is planned later.

        Returns how many full blocks were given back because another request holds the same tokens.
        """
        return 0

    def take_moves(self) -> list[Move]:
        """The moves since the last call, to be made in this order before the iteration runs.

        Targets are free once the moves before are made; within a move sources are read first.
        """
        return []

    @abstractmethod
    def release(self, request: Request) -> int:
        """Take back all that `request` holds; it leaves the decode members if it is one.

        What an iteration that did not run was to compute is forgotten. Returns how many of its
        blocks others still hold.

        Raises:
            KeyError: it holds nothing (released twice, or never admitted).
        """

    def swap_out(self, request: Request) -> BlockPairs | None:
        """Give the computed tokens of `request` a place in the host tier; `release` comes next.

        Returns the copies to make, device block to host block, before the iteration runs; None,
        and no change, if the tier has no room or the tokens are not computed yet.
        """
        return None

    def swap_in(self, request: Request, tokens: int) -> BlockPairs | None:
        """Take a swapped-out `request` back, with room for `tokens` tokens in all.

        Returns the copies to make, host block to device block, in the order of all such calls;
        None, and no change, if there is no room.
        """
        return None

    def forget_swapped(self, request: Request) -> None:  # noqa: B027 (most have no host tier)
        """Drop what the host tier holds of `request`."""

    @abstractmethod
    def block_table(self, request: Request) -> Sequence[int]:
        """The ids of its blocks in token order; empty if it holds none."""

    @abstractmethod
    def join(self, request: Request) -> None:
        """Make `request` a decode member; all its computed tokens have room."""

    @abstractmethod
    def leave(self, request: Request) -> None:
        """End its membership; it keeps its blocks."""

    @property
    @abstractmethod
    def needy(self) -> Sequence[Request]:
        """Decode members without a slot for their next token, in running order."""

    @abstractmethod
    def grow(self, request: Request) -> bool:
        """Give one needy member a slot for its next token; False, and no change, if none is left.

        True at once for a member that is not needy.
        """

    def can_grow_all(self) -> bool:
        """Whether `grow_all` finds a slot for every needy member."""
        return len(self.needy) <= self.free_blocks

    @abstractmethod
    def grow_all(self) -> None:
        """`grow` every needy member in running order; only where `can_grow_all`."""

    @abstractmethod
    def advance(self) -> None:
        """The planned iteration is decided: all members use the slot for their next token."""

    @property
    def quiet_iterations(self) -> int:
        """In how many iterations from the planned one on no member needs anything, and none else.

        So many may be decided at once, with `skip`. 0, always right: who knows.
        """
        return 0

    def skip(self, iterations: int) -> None:
        """`advance` so many times; only where `quiet_iterations` are as many."""
        for _ in range(iterations):
            self.advance()

    @abstractmethod
    def check(self) -> None:
        """Assert every invariant; O(blocks)."""
