"""Memory managers of the KV cache. A new one is a file here and an entry in `MANAGERS`."""

from dataclasses import dataclass

from schedsim.config import MAX_BLOCKS
from schedsim.content import Content
from schedsim.errors import ConfigError
from schedsim.memory.base import Found, KVCache, MemoryUse, Move
from schedsim.memory.paged import PagedKVCache
from schedsim.memory.prefix_cached import PrefixCachedKVCache
from schedsim.specs import build_from_spec, parse_spec, unknown_name


@dataclass(frozen=True, slots=True)
class Paged:
    """`paged`: any free block serves any request.

    `prefix_caching` finds computed blocks again; `host_blocks` are there to swap blocks out to.
    """

    prefix_caching: bool = False
    host_blocks: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.host_blocks <= MAX_BLOCKS:
            raise ConfigError(
                f"memory manager 'paged': host_blocks={self.host_blocks} is not from 0 to "
                f"{MAX_BLOCKS}"
            )

    def build(self, total_blocks: int, block_size: int, content: Content | None) -> KVCache:
        """The manager; only a prefix cache needs `content`."""
        if not self.prefix_caching:
            return PagedKVCache(total_blocks, block_size, self.host_blocks)
        assert content is not None, "a prefix cache without content"
        return PrefixCachedKVCache(total_blocks, block_size, content, self.host_blocks)


MANAGERS = {"paged": Paged}


def make_kv_cache(
    text: str, total_blocks: int, block_size: int, content: Content | None = None
) -> KVCache:
    """Build the memory manager named by the spec `text`.

    `content` says what the tokens of requests are, which a prefix cache has to know.

    Raises:
        ConfigError: an unknown name or parameter.
    """
    spec = parse_spec(text)
    if spec.name not in MANAGERS:
        raise unknown_name("memory manager", spec.name, MANAGERS)
    manager = build_from_spec("memory manager", MANAGERS[spec.name], spec)
    return manager.build(total_blocks, block_size, content)


__all__ = [
    "MANAGERS",
    "Found",
    "KVCache",
    "MemoryUse",
    "Move",
    "PagedKVCache",
    "PrefixCachedKVCache",
    "make_kv_cache",
]
