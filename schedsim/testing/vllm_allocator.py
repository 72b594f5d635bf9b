"""vLLM's own `KVCacheManager` as a foreign allocator: how an adapter is written.

Source: vLLM 0.33.0, `vllm/v1/core/kv_cache_manager.py`. Imports vLLM, which no extra of schedsim
brings; nothing else imports this module.
"""

from collections.abc import Sequence

import torch
from vllm.sampling_params import SamplingParams
from vllm.v1.core.kv_cache_manager import KVCacheManager
from vllm.v1.kv_cache_interface import FullAttentionSpec, KVCacheConfig, KVCacheGroupSpec
from vllm.v1.request import Request

MAX_TOKENS = 2**20


class VLLMAllocator:
    """Blocks from vLLM's manager and its `BlockPool`, without prefix caching."""

    def __init__(self, blocks: int, block_size: int) -> None:
        """`blocks` usable ones; vLLM's null block comes on top."""
        spec = FullAttentionSpec(
            block_size=block_size, num_kv_heads=1, head_size=1, dtype=torch.float32
        )
        config = KVCacheConfig(
            num_blocks=blocks + 1,
            kv_cache_tensors=[],
            kv_cache_groups=[KVCacheGroupSpec(["layer"], spec)],
        )
        self._manager = KVCacheManager(
            config,
            max_model_len=MAX_TOKENS,
            scheduler_block_size=block_size,
            hash_block_size=block_size,
            enable_caching=False,
        )
        self._requests: dict[int, Request] = {}

    @property
    def num_free(self) -> int:
        free: int = self._manager.block_pool.get_num_free_blocks()
        return free

    def allocate(self, request: int, num_tokens: int) -> Sequence[int] | None:
        theirs = Request(
            request_id=str(request),
            prompt_token_ids=[0],
            sampling_params=SamplingParams(max_tokens=1),
            pooling_params=None,
        )
        table = self._room(theirs, num_tokens)
        if table is not None:
            self._requests[request] = theirs
        return table

    def append(self, request: int, num_tokens: int) -> Sequence[int] | None:
        return self._room(self._requests[request], num_tokens)

    def free(self, request: int) -> None:
        # vLLM takes the release of an unknown request for a release of nothing.
        self._manager.free(self._requests.pop(request))

    def _room(self, theirs: Request, num_tokens: int) -> Sequence[int] | None:
        if self._manager.allocate_slots(theirs, num_tokens) is None:
            return None
        (table,) = self._manager.get_block_ids(theirs.request_id)
        ids: list[int] = table
        return ids
