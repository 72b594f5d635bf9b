"""What the KV memory is used for under each memory manager, as in Figure 2 of vLLM's paper.

Serves requests with ShareGPT's mean lengths on OPT-13B beside one A100 of 40 GB, more than can run
at any time, and prints the table of docs/memory.md:

    python tests/benchmarks/memory_use.py

Source: Kwon et al., "Efficient Memory Management for Large Language Model Serving with
PagedAttention", SOSP'23, Figures 2 and 13 and Table 1.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

import schedsim
from schedsim.costs import load_model
from schedsim.experiments.in_line import InLine, use_in_line
from schedsim.memory import make_manager
from schedsim.traces.trace import Trace, TraceSource

MEAN_PROMPT, MEAN_OUTPUT = 161.31, 337.99
CONTEXT = 2048
SLOTS = 15_696
"""Table 1 has 15.7 thousand slots."""

NUM_REQUESTS = 2000


@dataclass(frozen=True)
class Case:
    """A memory manager, and what the paper has: the share of slots that hold tokens, and words for
    the requests served at once; None where it is not in there."""

    label: str
    memory: str
    block_size: int
    paper: float | None = None
    paper_at_once: str | None = None


CASES = (
    Case("maximum (Orca Max)", "buddy,reserve=max", 1, 0.204, " (7.0)"),
    Case("output to 2^k, buddy (Orca Pow2)", "buddy,reserve=pow2", 1, 0.268),
    Case("exact, buddy (Orca Oracle)", "buddy,reserve=exact", 1, 0.382, " (13.6)"),
    Case("exact, first fit", "contiguous,reserve=predicted", 1),
    Case("exact, first fit, compaction", "contiguous,reserve=predicted,compaction=true", 1),
    Case("vAttention, 2 MiB pages", "vattention", 16),
    Case("vAttention, 64 KiB pages", "vattention,page_kib=64", 16),
    Case("paged, 16 tokens (vLLM)", "paged", 16, 0.963, " (30.4)"),
    Case("radix, 1 token", "radix", 1),
)


@dataclass(frozen=True)
class Use:
    """What the slots are used for while requests wait, and what that costs."""

    shares: InLine
    preemptions: int
    moved_blocks: int


def lengths(law: str, count: int = NUM_REQUESTS) -> Trace:
    """`count` requests at time 0 whose lengths are `exponential` or `lognormal`.

    A request that would not fit into the context is drawn again, as data sets are filtered.
    """
    rng = np.random.default_rng(7)

    def draw(mean: float) -> Any:
        if law == "exponential":
            return rng.exponential(mean, 2 * count)
        sigma = 1.0
        return rng.lognormal(np.log(mean) - sigma**2 / 2, sigma, 2 * count)

    prompts = np.maximum(np.ceil(draw(MEAN_PROMPT)), 1).astype(np.int32)
    outputs = np.maximum(np.ceil(draw(MEAN_OUTPUT)), 1).astype(np.int32)
    fits = np.flatnonzero(prompts + outputs <= CONTEXT)[:count]
    assert len(fits) == count, "too many requests exceed the context"
    source = TraceSource("sharegpt-means", "test", rows_read=count)
    return Trace(np.zeros(count), prompts[fits], outputs[fits], source)


def measure(case: Case, trace: Trace) -> Use:
    """Serve the whole trace first come first served."""
    result = schedsim.simulate(
        trace,
        "vllm",
        model="opt-13b",
        gpu="a100-40gb",
        memory=case.memory,
        predictor="oracle",
        blocks=SLOTS // case.block_size,
        block_size=case.block_size,
        max_model_len=CONTEXT,
    )
    assert result.summary["requests"]["finished"] == len(trace)
    model = load_model("opt-13b")
    token_bytes = model.kv_bytes_per_token // (2 * model.layers)
    block_size = make_manager(case.memory).own_block_size(case.block_size, token_bytes)
    shares = use_in_line(result, block_size)
    assert shares is not None, "nobody ever waited"
    return Use(shares, result.summary["preemptions"], result.summary["copied_blocks"])


def row(case: Case, use: Use) -> str:
    """A line of the table."""
    of = use.shares
    shares = [of.tokens, case.paper, of.reserved, of.internal, of.external, of.free]
    told = ["-" if share is None else f"{100 * share:.1f} %" for share in shares]
    at_once = f"{of.requests:.1f}" + ("" if case.paper_at_once is None else case.paper_at_once)
    moved = use.moved_blocks * case.block_size
    return f"| {case.label} | {' | '.join(told)} | {at_once} | {use.preemptions:,} | {moved:,} |"


def main() -> None:
    """Print a table for each law of lengths."""
    for law in ("exponential", "lognormal"):
        print(f"\n{law} lengths, {NUM_REQUESTS} requests\n")
        print(
            "| memory | tokens | paper | reserved | internal | external | free | at once | "
            "preempted | moved |"
        )
        print("|---|" + "---:|" * 9)
        for case in CASES:
            print(row(case, measure(case, lengths(law))))


if __name__ == "__main__":
    main()
