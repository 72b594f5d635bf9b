"""What schedsim ships, under its own kit: every memory manager, every policy."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from schedsim.content import Content
from schedsim.memory import MANAGERS, KVCache, make_kv_cache
from schedsim.policies import POLICIES
from schedsim.testing import (
    NON_PREEMPTIVE,
    WORK_CONSERVING,
    Claim,
    Fair,
    PolicyViolation,
    StarvationFree,
    check_allocator,
    check_policy,
    traces,
)
from schedsim.testing.claims import Decision, Witness
from schedsim.traces.trace import Trace, TraceSource

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


FCFS: list[Claim] = [WORK_CONSERVING, StarvationFree(0)]
NO_OVERTAKING: list[Claim] = [NON_PREEMPTIVE, StarvationFree(0)]


OTHER_MEMORIES = [
    "paged,prefix_caching=true,free_order=back",
    "radix",
    "radix,page_size=4",
    "vattention,tokens_per_page=4",
    "contiguous,reserve=predicted,compaction=true",
    "buddy,reserve=exact,overrun=preempt",
]
"""Beside those of the kit, with a host tier of any size where they may have one."""


@pytest.mark.parametrize(
    "policy", ["vllm", "vllm-v0,preemption=swap", "sglang", "tgi", "edf,preemptive=true"]
)
@pytest.mark.parametrize("memory", OTHER_MEMORIES)
def test_a_policy_keeps_the_rules_on_every_memory(policy: str, memory: str) -> None:
    check_policy(policy, memories=[memory], examples=examples())


POLICY_SPECS: list[tuple[str, list[Claim]]] = [
    ("vllm", FCFS),
    ("vllm,whole_sequence=false", FCFS),
    ("vllm,whole_sequence=false,watermark=0.1", [StarvationFree(0)]),
    ("vllm@0.11", FCFS),
    ("vllm@0.19", FCFS),
    ("vllm@0.33", FCFS),
    ("vllm-v0", []),
    ("vllm-v0,preemption=swap,running_order=arrival", []),
    ("vllm-v0,padded_budget=true,watermark=0.2", []),
    ("vllm-v0,chunked=true", []),
    ("sarathi,chunk_size=8", [WORK_CONSERVING]),
    ("sarathi,chunk_size=1,watermark=0.0", [WORK_CONSERVING]),
    ("static,batch_size=3", NO_OVERTAKING),
    ("static,batch_size=4,max_wait=0.5", NO_OVERTAKING),
    ("static,batch_size=4,prefill_tokens=9", [NON_PREEMPTIVE]),
    ("static,batch_size=4,reserve=prompt,order=predicted", []),
    ("orca", NO_OVERTAKING),
    ("orca,reserve=limit", NO_OVERTAKING),
    ("tgi", [NON_PREEMPTIVE]),
    ("tgi,chunking=true", NO_OVERTAKING),
    ("trtllm", [NON_PREEMPTIVE]),
    ("trtllm,capacity=max-utilization,chunking=equal-progress", []),
    ("past-future", []),
    ("sglang", []),
    ("sglang,order=lpm", []),
    ("sglang,order=dfs-weight", []),
    ("composed", FCFS),
    ("composed,admit=reserve", NO_OVERTAKING),
    ("composed,order=srtf,admit=peak,victim=longest,mode=swap", []),
    ("composed,order=srtf,admit=chunk,victim=worst,displace=true", []),
    ("composed,order=priority,admit=reserve,victim=worst,mode=swap,displace=true", []),
    ("sjf", [WORK_CONSERVING]),
    ("srtf", [WORK_CONSERVING]),
    ("srtf,limit=0.5,preemption=swap", [WORK_CONSERVING]),
    ("priority", [WORK_CONSERVING]),
    ("priority,displaces=true,aging=1.0", [WORK_CONSERVING]),
    ("las", [WORK_CONSERVING]),
    ("mlfq", [WORK_CONSERVING]),
    ("ltr", [WORK_CONSERVING]),
    ("ltr,starvation=3,period=2", [WORK_CONSERVING]),
    ("multi-bin", [NON_PREEMPTIVE]),
    ("multi-bin,batch_size=3,max_wait=0.5,reserve=prompt,prefill_tokens=9", []),
    ("multi-bin-continuous", [WORK_CONSERVING]),
    ("mcsf", []),
    ("nested-wait", []),
    ("vtc", [WORK_CONSERVING]),
    ("vtc,reserve=output", [NON_PREEMPTIVE]),
    ("dlpm", []),  # a head without room ends admission, and its head has the longest prefix
    ("edf", [WORK_CONSERVING]),
    ("edf,preemptive=true,preemption=swap", [WORK_CONSERVING]),
    ("qoserve", []),
    ("andes", []),
    ("andes,window=1,interval=1", []),
]
"""Every policy, with what its source claims of it."""

DEEP = 1000
"""From so many examples on a profile is meant for nights, and no policy gets fewer."""


def examples() -> int:
    """How many of the profile's examples a policy gets: there are many policies."""
    assert settings.default is not None
    number = settings.default.max_examples
    return number if number >= DEEP else max(20, number // 2)


def test_every_policy_is_checked() -> None:
    assert {spec.partition(",")[0] for spec, _ in POLICY_SPECS} == set(POLICIES)


@pytest.mark.parametrize(("spec", "claims"), POLICY_SPECS, ids=str)
def test_a_policy_keeps_the_rules_and_its_claims(spec: str, claims: list[Claim]) -> None:
    check_policy(spec, claims=claims, examples=examples())


@pytest.mark.parametrize("spec", ["sarathi,chunk_size=8", "sarathi,chunk_size=1,watermark=0.0"])
def test_sarathi_is_first_come_first_served(spec: str) -> None:
    """With a batch in flight, whoever preempted itself is passed over until that has ended."""
    claims = [StarvationFree(0)]
    check_policy(spec, claims=claims, decision_lags=(0,), examples=examples())


def exactly_predicted(trace: Trace) -> Trace:
    return replace(trace, predicted_output=trace.output_tokens.astype(np.float64))


EXACT = traces(
    max_prompt=24, max_output=16, shared_prefixes=True, follow_ups=True, priorities=True
).map(exactly_predicted)


class NothingLost(Claim):
    """Nobody is preempted but who has ended unseen, with its last token in flight.

    Where an end is seen a decision late its request is decided once more, for a token that is
    thrown away; one that filled the whole cache alone has no slot for that.
    """

    def witness(self) -> Witness:
        return LastTokenInFlight()


class LastTokenInFlight(Witness):
    def problem(self, decision: Decision) -> str:
        for victim in decision.batch.preempted:
            left = decision.scheduler._targets[victim.id] - victim.num_generated_tokens
            if left > decision.decision_lag:
                return f"request {victim.id} is preempted with {left} tokens to come"
        return ""


@pytest.mark.parametrize(
    ("spec", "lags"),
    [
        ("mcsf", (0,)),  # 1 in tests/policies, where the cache has a slot more than a request
        ("past-future,lengths=predicted,margin=0", (0,)),
        ("past-future,lengths=predicted,margin=1", (0, 1)),
    ],
)
def test_with_exact_lengths_nobody_is_preempted(spec: str, lags: tuple[int, ...]) -> None:
    check_policy(
        spec,
        claims=[NothingLost()],
        trace_strategy=EXACT,
        decision_lags=lags,
        examples=examples(),
    )


def all_predicted_short(requests: int, prompt: int, output: int) -> Trace:
    return Trace(
        arrival=np.zeros(requests),
        prompt_tokens=np.full(requests, prompt, dtype=np.int32),
        output_tokens=np.full(requests, output, dtype=np.int32),
        source=TraceSource("drawn", "test", rows_read=requests),
        predicted_output=np.ones(requests),
    )


@pytest.mark.parametrize("spec", ["past-future,lengths=predicted,margin=0", "mcsf", "vllm-v0"])
def test_what_a_preemption_made_longer_than_the_budget_runs_alone(spec: str) -> None:
    drawn = st.builds(all_predicted_short, st.integers(2, 5), st.integers(1, 7), st.integers(8, 20))
    check_policy(spec, trace_strategy=drawn, examples=examples())


@st.composite
def two_backlogs(draw: st.DrawFn) -> Trace:
    """96 requests of two tenants at once, half of them each; 4 to 8 tokens in, 4 to 8 out."""
    lengths = st.lists(st.integers(4, 8), min_size=96, max_size=96)
    outputs = np.array(draw(lengths), dtype=np.int32)
    return Trace(
        arrival=np.zeros(96),
        prompt_tokens=np.array(draw(lengths), dtype=np.int32),
        output_tokens=outputs,
        source=TraceSource("drawn", "test", rows_read=96),
        max_output_tokens=outputs + draw(st.integers(0, 2)),
        tenant=np.repeat([0, 1], 48),
    )


LONGEST, SEATS = 8 + 8 + 2, 8
TWICE_U = 2 * max(8, 2 * LONGEST * SEATS)
"""The bound of Sheng et al. for `two_backlogs` on the most seats that the kit draws."""


def test_vtc_is_fair_within_its_bound_which_first_come_first_served_is_not() -> None:
    claims = [Fair(TWICE_U)]
    drawn = two_backlogs()
    few = examples() // 3
    check_policy("vtc,reserve=output", claims=claims, trace_strategy=drawn, examples=few)
    with pytest.raises(PolicyViolation, match="their services drift apart"):
        check_policy("vllm", claims=claims, trace_strategy=drawn, examples=few, max_shrinks=0)
