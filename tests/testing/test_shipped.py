"""What schedsim ships, under its own kit: every memory manager, every policy."""

from typing import Any

import pytest

from schedsim.memory import MANAGERS, make_kv_cache
from schedsim.policies import POLICIES
from schedsim.testing import (
    NON_PREEMPTIVE,
    WORK_CONSERVING,
    Claim,
    StarvationFree,
    check_allocator,
    check_policy,
)

PROMISES: dict[str, dict[str, Any]] = {"paged": {}}
"""What a manager claims, or must be granted, beside the contract."""

MEMORIES = [
    *sorted(MANAGERS),
    "paged,host_blocks=6",
    "paged,prefix_caching=true",
    "paged,prefix_caching=true,host_blocks=6",
]


@pytest.mark.parametrize("memory", MEMORIES)
def test_a_memory_manager_keeps_its_contract(memory: str) -> None:
    name = memory.partition(",")[0]
    check_allocator(
        lambda blocks, block_size, content: make_kv_cache(memory, blocks, block_size, content),
        **PROMISES[name],
    )


POLICY_SPECS: list[tuple[str, list[Claim]]] = [
    ("vllm", [WORK_CONSERVING, StarvationFree(0)]),
    ("vllm,whole_sequence=false,watermark=0.1", []),
    ("vllm-v0", []),
    ("vllm-v0,preemption=swap,running_order=arrival", []),
    ("vllm-v0,padded_budget=true,watermark=0.2", []),
    ("sarathi,chunk_size=8", []),
    ("sarathi,chunk_size=1,watermark=0.0", []),
    ("static,batch_size=3", [NON_PREEMPTIVE]),
    ("static,batch_size=4,max_wait=0.5", [NON_PREEMPTIVE]),
]


def test_every_policy_is_checked() -> None:
    assert {spec.partition(",")[0] for spec, _ in POLICY_SPECS} == set(POLICIES)


@pytest.mark.parametrize(("spec", "claims"), POLICY_SPECS, ids=str)
def test_a_policy_keeps_the_rules_and_its_claims(spec: str, claims: list[Claim]) -> None:
    check_policy(spec, claims=claims)
