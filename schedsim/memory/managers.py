"""What `--memory` names: a dataclass a manager, whose fields are its parameters."""

import math
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

from schedsim.config import MAX_BLOCKS
from schedsim.content import Content
from schedsim.errors import ConfigError
from schedsim.memory.base import KVCache
from schedsim.memory.buddy import BuddyKVCache
from schedsim.memory.contiguous import ContiguousKVCache
from schedsim.memory.paged import PagedKVCache, QueuedKVCache
from schedsim.memory.prefix_cached import PrefixCachedKVCache
from schedsim.memory.radix import RadixKVCache
from schedsim.memory.reserved import Foresight, Overrun
from schedsim.memory.vattention import VAttentionKVCache, tokens_per_page


class Manager(Protocol):
    """A memory manager by name and parameters, not built yet."""

    in_one_piece: ClassVar[bool]
    """As `KVCache.in_one_piece`."""

    def own_block_size(self, block_size: int, layer_bytes: int) -> int:
        """Tokens in its blocks where the user asks for blocks of `block_size`.

        `layer_bytes` are those of the keys of a token in one layer on one GPU.
        """

    def build(
        self, total_blocks: int, block_size: int, content: Content | None, max_model_len: int
    ) -> KVCache:
        """The manager, with blocks of its own size. Only prefix caches need `content`."""


class AnyBlockSize:
    """Blocks are as large as the user wants."""

    __slots__ = ()

    in_one_piece: ClassVar[bool] = False

    def own_block_size(self, block_size: int, layer_bytes: int) -> int:
        """What the user asks for."""
        return block_size


@dataclass(frozen=True, slots=True)
class Paged(AnyBlockSize):
    """Any free block serves any request, as in vLLM.

    `prefix_caching` finds computed blocks again; `host_blocks` are there to swap blocks out to.
    Freed blocks go to the front of the free list, or to its back as in vLLM 0.11 (`free_order`).
    `stale_keys` is a fault of vLLM's cache, needed to equal its decisions under priorities: a block
    stays to be found though the request that was to fill it was preempted in the same iteration.
    """

    prefix_caching: bool = False
    host_blocks: int = 0
    free_order: Literal["front", "back"] = "front"
    stale_keys: bool = False

    def __post_init__(self) -> None:
        check_host_blocks("paged", self.host_blocks)
        if self.stale_keys and not self.prefix_caching:
            raise ConfigError(
                "memory manager 'paged': stale_keys=true is about a prefix cache; add "
                "prefix_caching=true"
            )

    def build(
        self, total_blocks: int, block_size: int, content: Content | None, max_model_len: int
    ) -> KVCache:
        """`PagedKVCache`, `QueuedKVCache` or `PrefixCachedKVCache`."""
        queued = self.free_order == "back"
        if not self.prefix_caching:
            manager = QueuedKVCache if queued else PagedKVCache
            return manager(total_blocks, block_size, self.host_blocks)
        assert content is not None, "a prefix cache without content"
        return PrefixCachedKVCache(
            total_blocks, block_size, content, self.host_blocks, queued, self.stale_keys
        )


@dataclass(frozen=True, slots=True)
class Contiguous(AnyBlockSize):
    """Each request lies in one piece, reserved at admission; first fit among the holes.

    `reserve`: prompt and output limit, the model's maximum, or prompt and predicted output times
    (1 + `margin`). Who outgrows it is extended in place, else moved or preempted (`overrun`).
    `compaction` slides everything together when only the pieces are too small.
    """

    in_one_piece: ClassVar[bool] = True

    reserve: Literal["limit", "max", "predicted"] = "limit"
    margin: float = 0.0
    overrun: Overrun = "move"
    compaction: bool = False
    host_blocks: int = 0

    def __post_init__(self) -> None:
        check_host_blocks("contiguous", self.host_blocks)
        if not 0.0 <= self.margin < math.inf:
            raise ConfigError(
                f"memory manager 'contiguous': margin={self.margin} is negative or not finite"
            )
        if self.margin and self.reserve != "predicted":
            raise ConfigError(
                f"memory manager 'contiguous': margin={self.margin} is for reserve=predicted"
            )

    def build(
        self, total_blocks: int, block_size: int, content: Content | None, max_model_len: int
    ) -> KVCache:
        """`ContiguousKVCache`."""
        if self.reserve == "max":
            check_maximum("contiguous", total_blocks, block_size, max_model_len)
        return ContiguousKVCache(
            total_blocks,
            block_size,
            Foresight(self.reserve, max_model_len, self.margin),
            self.overrun,
            self.compaction,
            self.host_blocks,
        )


@dataclass(frozen=True, slots=True)
class Buddy(AnyBlockSize):
    """Each request lies in one chunk of 2^k blocks, as vLLM's paper has it for Orca.

    `reserve`: prompt and predicted output (or the limit) rounded up to a power of two, the same
    without that rounding, or the model's maximum. `overrun` as for contiguous.
    """

    in_one_piece: ClassVar[bool] = True

    reserve: Literal["pow2", "exact", "max"] = "pow2"
    overrun: Overrun = "move"
    host_blocks: int = 0

    def __post_init__(self) -> None:
        check_host_blocks("buddy", self.host_blocks)

    def build(
        self, total_blocks: int, block_size: int, content: Content | None, max_model_len: int
    ) -> KVCache:
        """`BuddyKVCache`."""
        if self.reserve == "max":
            chunk = 1 << (-(-max_model_len // block_size) - 1).bit_length()
            check_maximum("buddy", total_blocks, block_size, chunk * block_size)
        foresight = Foresight(
            "predicted" if self.reserve == "exact" else self.reserve, max_model_len
        )
        return BuddyKVCache(total_blocks, block_size, foresight, self.overrun, self.host_blocks)


@dataclass(frozen=True, slots=True)
class Radix:
    """A radix tree finds computed tokens again, in pages of `page_size` tokens, as in SGLang."""

    in_one_piece: ClassVar[bool] = False

    page_size: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.page_size <= 65536:
            raise ConfigError(
                f"memory manager 'radix': page_size={self.page_size} is not from 1 to 65536"
            )

    def own_block_size(self, block_size: int, layer_bytes: int) -> int:
        """The page size, whatever the user's blocks are."""
        return self.page_size

    def build(
        self, total_blocks: int, block_size: int, content: Content | None, max_model_len: int
    ) -> KVCache:
        """`RadixKVCache`."""
        assert content is not None, "a prefix cache without content"
        return RadixKVCache(total_blocks, block_size, content)


@dataclass(frozen=True, slots=True)
class VAttention:
    """Pages of `page_kib` KiB a layer, mapped on demand into each request's virtual range.

    A block is a page of every layer's keys and values: `tokens_per_page` tokens, by default what
    the model's heads make of the page size.
    """

    in_one_piece: ClassVar[bool] = False

    page_kib: int = 2048
    tokens_per_page: int | None = None
    host_blocks: int = 0

    def __post_init__(self) -> None:
        check_host_blocks("vattention", self.host_blocks)
        for name, value in (("page_kib", self.page_kib), ("tokens_per_page", self.tokens_per_page)):
            if value is not None and value < 1:
                raise ConfigError(f"memory manager 'vattention': {name}={value} is below 1")

    def own_block_size(self, block_size: int, layer_bytes: int) -> int:
        """The tokens in a page."""
        return self.tokens_per_page or tokens_per_page(self.page_kib, layer_bytes)

    def build(
        self, total_blocks: int, block_size: int, content: Content | None, max_model_len: int
    ) -> KVCache:
        """`VAttentionKVCache`."""
        return VAttentionKVCache(total_blocks, block_size, self.host_blocks)


def check_host_blocks(name: str, host_blocks: int) -> None:
    """Raise ConfigError unless there may be so many."""
    if not 0 <= host_blocks <= MAX_BLOCKS:
        raise ConfigError(
            f"memory manager {name!r}: host_blocks={host_blocks} is not from 0 to {MAX_BLOCKS}"
        )


def check_maximum(name: str, total_blocks: int, block_size: int, tokens: int) -> None:
    """Raise ConfigError unless one request with a reservation of `tokens` tokens fits."""
    need = -(-tokens // block_size)
    if need > total_blocks:
        raise ConfigError(
            f"memory manager {name!r}: reserve=max takes {need} blocks of {block_size} tokens for "
            f"every request, the cache has {total_blocks}; lower --max-model-len, or raise --blocks"
        )
