"""What memory is used for under saturation: figures of vLLM's paper, and of docs/memory.md."""

from pathlib import Path

import pytest

from tests.benchmarks.memory_use import CASES, lengths, measure, row

PAGE = Path(__file__).resolve().parents[2] / "docs" / "memory.md"
IN_THE_PAPER = [case for case in CASES if case.paper is not None]


@pytest.mark.parametrize("case", IN_THE_PAPER, ids=lambda case: case.memory)
def test_the_share_of_slots_that_hold_tokens_is_the_papers(case) -> None:  # type: ignore[no-untyped-def]
    """Within 5 points of Figure 2 under either law, and as the page says."""
    assert case.paper is not None
    for law in ("exponential", "lognormal"):
        use = measure(case, lengths(law))
        assert use.shares.tokens == pytest.approx(case.paper, abs=0.05)
        assert row(case, use) in PAGE.read_text(encoding="utf-8")


def test_exact_lengths_without_rounding_come_near_60_per_cent() -> None:
    """Of what is reserved; compaction takes what lies between the ranges away."""
    by_memory = {case.memory: case for case in CASES}
    law = lengths("exponential")
    first_fit = measure(by_memory["contiguous,reserve=predicted"], law).shares
    assert first_fit.tokens / (first_fit.tokens + first_fit.reserved) == pytest.approx(
        0.60, abs=0.02
    )
    assert first_fit.external > 0.1
    assert first_fit.internal == pytest.approx(0.0, abs=1e-3)
    compacted = measure(by_memory["contiguous,reserve=predicted,compaction=true"], law).shares
    assert compacted.tokens == pytest.approx(0.60, abs=0.03)
    assert compacted.external == 0
