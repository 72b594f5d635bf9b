"""Memory managers of the KV cache. A new one is a file here and an entry in `MANAGERS`."""

from dataclasses import dataclass

from schedsim.content import Content
from schedsim.memory.base import Found, KVCache
from schedsim.memory.paged import PagedKVCache
from schedsim.memory.prefix_cached import PrefixCachedKVCache
from schedsim.specs import build_from_spec, parse_spec, unknown_name


@dataclass(frozen=True, slots=True)
class Paged:
    """`paged`: any free block serves any request; `prefix_caching` finds computed ones again."""

    prefix_caching: bool = False

    @property
    def needs_content(self) -> bool:
        """Whether the manager has to know what the tokens of requests are."""
        return self.prefix_caching

    def build(self, total_blocks: int, block_size: int, content: Content | None) -> KVCache:
        """The manager; `content` may be None if it is not needed."""
        if not self.prefix_caching:
            return PagedKVCache(total_blocks, block_size)
        assert content is not None, "a prefix cache without content"
        return PrefixCachedKVCache(total_blocks, block_size, content)


MANAGERS = {"paged": Paged}


def make_kv_cache(
    text: str, total_blocks: int, block_size: int, content: Content | None = None
) -> KVCache:
    """Build the memory manager named by the spec `text`.

    `content` says what the tokens of requests are; None will do where not `needs_content(text)`.

    Raises:
        ConfigError: an unknown name or parameter.
    """
    return _parse(text).build(total_blocks, block_size, content)


def needs_content(text: str) -> bool:
    """Whether the memory manager named by `text` has to know what the tokens of requests are.

    Raises:
        ConfigError: as `make_kv_cache`.
    """
    return _parse(text).needs_content


def _parse(text: str) -> Paged:
    spec = parse_spec(text)
    if spec.name not in MANAGERS:
        raise unknown_name("memory manager", spec.name, MANAGERS)
    return build_from_spec("memory manager", MANAGERS[spec.name], spec)


__all__ = [
    "MANAGERS",
    "Found",
    "KVCache",
    "PagedKVCache",
    "PrefixCachedKVCache",
    "make_kv_cache",
    "needs_content",
]
