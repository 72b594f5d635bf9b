"""What schedsim ships, under its own kit: every memory manager, every policy."""

import pytest
from hypothesis import settings

from schedsim.content import Content
from schedsim.memory import MANAGERS, KVCache, make_kv_cache
from schedsim.policies import POLICIES
from schedsim.testing import (
    NON_PREEMPTIVE,
    WORK_CONSERVING,
    Claim,
    StarvationFree,
    check_allocator,
    check_policy,
)

IN_ONE_PIECE = {"contiguous": True, "fragments": True}

PROMISES: dict[str, dict[str, bool]] = {
    "paged": {},
    "contiguous": IN_ONE_PIECE,
    "buddy": IN_ONE_PIECE,
    "radix": {},
    "vattention": {},
}
"""What a manager claims, or must be granted, beside the contract."""

MEMORIES = [
    *(name if name == "radix" else f"{name},host_blocks=6" for name in sorted(MANAGERS)),
    "paged,free_order=back",
    "paged,prefix_caching=true",
    "paged,prefix_caching=true,host_blocks=6",
    "paged,prefix_caching=true,free_order=back,host_blocks=6",
    "contiguous,overrun=preempt",
    "contiguous,reserve=max",
    "contiguous,reserve=predicted,margin=0.5",
    "contiguous,reserve=predicted,compaction=true,host_blocks=6",
    "buddy,reserve=exact,overrun=preempt",
    "buddy,reserve=max",
]


@pytest.mark.parametrize("memory", MEMORIES)
def test_a_memory_manager_keeps_its_contract(memory: str) -> None:
    def make(blocks: int, block_size: int, content: Content) -> KVCache:
        longest = max(blocks * block_size // 2, 1)
        return make_kv_cache(memory, blocks, block_size, content, longest)

    check_allocator(make, **PROMISES[memory.partition(",")[0]])


OTHER_MEMORIES = [
    "paged,prefix_caching=true,free_order=back",
    "radix",
    "radix,page_size=4",
    "vattention,tokens_per_page=4",
    "contiguous,reserve=predicted,compaction=true",
    "buddy,reserve=exact,overrun=preempt",
]
"""Beside those of the kit, with a host tier of any size where they may have one."""


@pytest.mark.parametrize("policy", ["vllm", "vllm-v0,preemption=swap", "sglang"])
@pytest.mark.parametrize("memory", OTHER_MEMORIES)
def test_a_policy_keeps_the_rules_on_every_memory(policy: str, memory: str) -> None:
    check_policy(policy, memories=[memory])


POLICY_SPECS: list[tuple[str, list[Claim]]] = [
    ("vllm", [WORK_CONSERVING, StarvationFree(0)]),
    ("vllm,whole_sequence=false,watermark=0.1", []),
    ("vllm@0.11", []),
    ("vllm@0.19", []),
    ("vllm@0.33", []),
    ("vllm-v0", []),
    ("vllm-v0,preemption=swap,running_order=arrival", []),
    ("vllm-v0,padded_budget=true,watermark=0.2", []),
    ("sarathi,chunk_size=8", []),
    ("sarathi,chunk_size=1,watermark=0.0", []),
    ("static,batch_size=3", [NON_PREEMPTIVE]),
    ("static,batch_size=4,max_wait=0.5", [NON_PREEMPTIVE]),
    ("orca,reserve=limit", [NON_PREEMPTIVE]),
    ("tgi", [NON_PREEMPTIVE]),
    ("trtllm", [NON_PREEMPTIVE]),
    ("trtllm,capacity=max-utilization,chunking=equal-progress", []),
    ("past-future", []),
    ("sglang", []),
    ("composed,order=srtf,admit=peak,victim=longest,mode=swap", []),
    ("sjf", []),
    ("srtf", []),
    ("srtf,limit=0.5,preemption=swap", []),
    ("priority", []),
    ("las", []),
    ("mlfq", []),
    ("ltr", []),
    ("multi-bin", [NON_PREEMPTIVE]),
    ("multi-bin-continuous", []),
    ("mcsf", []),
    ("nested-wait", []),
    ("vtc", []),
    ("dlpm", []),
    ("edf", []),
    ("qoserve", []),
    ("andes", []),
]


def test_every_policy_is_checked() -> None:
    assert {spec.partition(",")[0] for spec, _ in POLICY_SPECS} == set(POLICIES)


@pytest.mark.parametrize(("spec", "claims"), POLICY_SPECS, ids=str)
def test_a_policy_keeps_the_rules_and_its_claims(spec: str, claims: list[Claim]) -> None:
    assert settings.default is not None
    check_policy(spec, claims=claims, examples=max(20, settings.default.max_examples // 2))
