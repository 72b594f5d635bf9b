"""`VAttentionKVCache`: physical pages behind a virtual range of the whole context for each request.

Source: Prabhu et al., "vAttention", ASPLOS'25, arXiv 2405.04437.
"""

from schedsim.errors import ConfigError
from schedsim.memory.paged import PagedKVCache


class VAttentionKVCache(PagedKVCache):
    """A block here is a *page group*: a page of every layer's keys and one of its values.

    The virtual range of a request is contiguous and never short; only pages are, and any page group
    can be mapped anywhere. So it is paged memory with blocks of `tokens_per_page` tokens. The
    stack of free blocks is the paper's deferred reclamation: the page groups of who finished last
    are given to the next one in the order in which they were mapped. Mapping costs no time here:
    the paper's allocates ahead, in the background.
    """


def tokens_per_page(page_kib: int, layer_bytes: int) -> int:
    """Tokens in a page of `page_kib` KiB, where a token's keys in one layer are `layer_bytes`.

    Raises:
        ConfigError: a page does not hold a token.
    """
    tokens = page_kib * 1024 // layer_bytes
    if tokens < 1:
        raise ConfigError(
            f"memory manager 'vattention': a page of {page_kib} KiB does not hold the keys of a "
            f"token in one layer, {layer_bytes} bytes; take a larger page_kib"
        )
    return tokens
