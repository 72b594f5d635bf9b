"""Reference schedulers and compositions with parameters at random, for tests of all policies."""

from itertools import product

from hypothesis import strategies as st

from schedsim.policies import TGI, TRTLLM, Composed, Orca, PastFuture, Policy, SGLang
from schedsim.policies.parts import ADMISSIONS, ORDERS, VICTIMS
from schedsim.policies.vllm_v0 import VLLMv0

COMBINATIONS = [
    (order, admit, victim, mode, False)
    for order, admit, victim, mode in product(
        ORDERS, ADMISSIONS, [*VICTIMS, "worst"], ["recompute", "swap"]
    )
    if admit != "reserve" or (victim, mode) == ("last", "recompute")
] + [
    (order, admit, "worst", mode, True)
    for order, admit, mode in product(ORDERS, ADMISSIONS, ["recompute", "swap"])
    if order not in ("fcfs", "las")
]
"""Order, admission rule, victim rule, mode and displacement that make sense together."""

VLLM_V0 = st.one_of(
    st.builds(
        VLLMv0,
        st.sampled_from([0.0, 0.01, 0.2]),
        st.booleans(),
        st.sampled_from(["admission", "arrival"]),
        delay_factor=st.sampled_from([0.0, 0.0, 0.5, 3.0]),
    ),
    st.builds(VLLMv0, st.sampled_from([0.0, 0.2]), policy=st.just("priority")),
    st.builds(
        VLLMv0,
        st.sampled_from([0.0, 0.2]),
        preemption=st.sampled_from(["recompute", "swap"]),
        chunked=st.just(True),
    ),
)

REFERENCE_STRATEGIES: dict[str, st.SearchStrategy[Policy]] = {
    "orca": st.builds(Orca, st.sampled_from(["max", "limit"])),
    "tgi": st.builds(
        TGI, st.sampled_from([0.0, 0.3, 1.2]), st.sampled_from([0, 3, 20]), st.booleans()
    ),
    "trtllm": st.one_of(
        st.builds(
            TRTLLM,
            st.sampled_from(["guaranteed-no-evict", "max-utilization"]),
            st.sampled_from(["fcfs", "equal-progress"]),
            st.sampled_from([None, 1, 5]),
        ),
        st.builds(
            TRTLLM,
            st.sampled_from(["guaranteed-no-evict", "max-utilization"]),
            st.just("none"),
        ),
    ),
    "past-future": st.builds(
        PastFuture,
        st.sampled_from(["conservative", "sampled", "predicted"]),
        st.sampled_from([2, 20]),
        st.sampled_from([0, 6]),
        st.sampled_from([None, 0.0, 0.3]),
        st.integers(0, 3),
    ),
    "sglang": st.builds(
        SGLang,
        st.sampled_from(["fcfs", "lpm", "dfs-weight", "lof"]),
        st.sampled_from([0, 16, 8192]),
        st.sampled_from([0.0, 0.3, 1.0]),
    ),
    "composed": st.sampled_from(COMBINATIONS).map(lambda parts: Composed(*parts)),
}
