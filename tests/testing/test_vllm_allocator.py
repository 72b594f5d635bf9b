"""vLLM's own block manager under the kit, where vLLM is installed (not in CI)."""

import pytest

from schedsim.content import Content
from schedsim.memory import KVCache
from schedsim.testing import AllocatorViolation, adapt, check_allocator

pytest.importorskip("vllm", reason="vLLM is not installed")

from schedsim.testing.vllm_allocator import VLLMAllocator


def vllm(blocks: int, block_size: int, content: Content) -> KVCache:
    return adapt(VLLMAllocator(blocks, block_size), blocks, block_size)


def test_vllms_manager_keeps_the_contract() -> None:
    check_allocator(vllm)


def test_a_bug_in_it_would_be_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """A block pool that gives back one block less than it is told."""
    from vllm.v1.core.block_pool import BlockPool

    free_blocks = BlockPool.free_blocks
    monkeypatch.setattr(
        BlockPool, "free_blocks", lambda pool, blocks: free_blocks(pool, list(blocks)[1:])
    )
    with pytest.raises(AllocatorViolation, match="blocks are free after"):
        check_allocator(vllm)
