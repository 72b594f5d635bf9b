"""Memory managers of the KV cache. A new one is a file here and a line in `MANAGERS`."""

from schedsim.memory.base import KVCache
from schedsim.memory.paged import PagedKVCache
from schedsim.specs import build_from_spec, parse_spec, unknown_name

MANAGERS = {"paged": PagedKVCache}


def make_kv_cache(text: str, total_blocks: int, block_size: int) -> KVCache:
    """Build the memory manager named by the spec `text`.

    Raises:
        ConfigError: an unknown name or parameter.
    """
    spec = parse_spec(text)
    if spec.name not in MANAGERS:
        raise unknown_name("memory manager", spec.name, MANAGERS)
    manager = MANAGERS[spec.name]

    def make() -> KVCache:
        return manager(total_blocks, block_size)

    return build_from_spec("memory manager", make, spec)


__all__ = ["MANAGERS", "KVCache", "PagedKVCache", "make_kv_cache"]
