"""Memory managers of the KV cache.

A new one is a file here, and a dataclass of its parameters in `managers` that `MANAGERS` names.
"""

from schedsim.content import Content
from schedsim.memory.base import Found, KVCache, MemoryUse, Move
from schedsim.memory.buddy import BuddyKVCache
from schedsim.memory.contiguous import ContiguousKVCache
from schedsim.memory.managers import Buddy, Contiguous, Manager, Paged, Radix, VAttention
from schedsim.memory.paged import PagedKVCache, QueuedKVCache
from schedsim.memory.prefix_cached import PrefixCachedKVCache
from schedsim.memory.radix import RadixKVCache
from schedsim.memory.reserved import Foresight
from schedsim.memory.vattention import VAttentionKVCache
from schedsim.specs import build_from_spec, parse_spec, unknown_name

MANAGERS: dict[str, type[Manager]] = {
    "paged": Paged,
    "contiguous": Contiguous,
    "buddy": Buddy,
    "radix": Radix,
    "vattention": VAttention,
}


def make_manager(text: str) -> Manager:
    """The memory manager named by the spec `text`, not built yet.

    Raises:
        ConfigError: an unknown name or parameter.
    """
    spec = parse_spec(text)
    if spec.name not in MANAGERS:
        raise unknown_name("memory manager", spec.name, MANAGERS)
    return build_from_spec("memory manager", MANAGERS[spec.name], spec)


def make_kv_cache(
    text: str,
    total_blocks: int,
    block_size: int,
    content: Content | None = None,
    max_model_len: int | None = None,
) -> KVCache:
    """Build the memory manager named by the spec `text`, with blocks of `block_size` tokens.

    `content` says what the tokens of requests are, which a prefix cache has to know;
    `max_model_len` how long a request may become, by default as long as the cache.

    Raises:
        ConfigError: an unknown name or parameter, or a cache too small for the manager.
    """
    if max_model_len is None:
        max_model_len = total_blocks * block_size
    return make_manager(text).build(total_blocks, block_size, content, max_model_len)


__all__ = [
    "MANAGERS",
    "BuddyKVCache",
    "ContiguousKVCache",
    "Foresight",
    "Found",
    "KVCache",
    "Manager",
    "MemoryUse",
    "Move",
    "PagedKVCache",
    "PrefixCachedKVCache",
    "QueuedKVCache",
    "RadixKVCache",
    "VAttentionKVCache",
    "make_kv_cache",
    "make_manager",
]
