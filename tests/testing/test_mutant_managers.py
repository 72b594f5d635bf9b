"""Bugs seeded into memory managers: the kit finds each and says what it is."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from schedsim.content import Content
from schedsim.errors import ConfigError
from schedsim.memory import KVCache, PagedKVCache, PrefixCachedKVCache, RadixKVCache
from schedsim.output_limit import Outputs
from schedsim.testing import AllocatorViolation, adapt, check_allocator
from schedsim.traces.trace import Trace, TraceSource
from tests.testing import mutant_managers as mutants

HOST_BLOCKS = 4

MUTANTS = [
    (mutants.LeaksABlock, "blocks are free after r"),
    (mutants.FreesTwice, "without a KeyError"),
    (mutants.GivesBlocksBackTwice, "blocks are free after r"),
    (mutants.SkipsARefcount, "others hold|blocks are free"),
    (mutants.HandsOutTheNullBlock, "0 is the null block"),
    (mutants.CountsTheNullBlock, "blocks are free and 0 held"),
    (mutants.KeepsWhatItRefused, "was refused but changed"),
    (mutants.KeysTooEarly, "reads no token|reads another token"),
    (mutants.ForgetsWhoRelies, "somebody relies on"),
    (mutants.SharesWithoutAPrefix, "share no prefix"),
    (mutants.MiscountsTheSharers, "others hold 0 blocks"),
    (mutants.GrowsTooLate, "needy are|grow refuses"),
    (mutants.CopiesBackwards, "copies .*, which has host blocks"),
    (mutants.LosesHostBlocks, "swap_out refuses"),
    (mutants.MovesTheWrongBlock, "reads no token|reads another token"),
    (mutants.WastesNothing, "MemoryUse.* slots are held"),
    (mutants.MovesInSilence, "reads no token|reads another token"),
]


@pytest.mark.parametrize(
    ("mutant", "message"), MUTANTS, ids=lambda value: getattr(value, "__name__", "")
)
def test_a_bug_in_a_manager_is_caught(mutant: type[KVCache], message: str) -> None:
    with pytest.raises(AllocatorViolation, match=message):
        check_allocator(_factory(mutant), examples=400, max_shrinks=20)


def test_a_manager_that_moves_blocks_and_says_so_is_right() -> None:
    check_allocator(_factory(mutants.Moves))


@pytest.mark.parametrize(
    ("allocator", "message"),
    [
        (mutants.OverlappingRanges, "has two owners"),
        (mutants.ScatteredRanges, "not a contiguous range"),
        (mutants.ReleasesAnything, "which holds nothing, without a KeyError"),
        (mutants.RefusesOddly, "raises ValueError: who is that"),
        (mutants.CannotCount, "raises RuntimeError: I never counted"),
    ],
)
def test_a_bug_in_a_foreign_allocator_is_caught(
    allocator: type[mutants.Ranges], message: str
) -> None:
    with pytest.raises(AllocatorViolation, match=message):
        check_allocator(
            lambda: adapt(allocator(12, 4), 12, 4),
            contiguous=True,
            fragments=True,
            max_shrinks=20,
        )


def test_a_foreign_allocator_without_a_bug_passes() -> None:
    check_allocator(lambda: adapt(mutants.Ranges(12, 4), 12, 4), contiguous=True, fragments=True)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda blocks: None, "takes 1 arguments"),
        (lambda: mutants.Ranges(12, 4), r"makes a Ranges, .* wrap an allocator in adapt\("),
        (lambda: RadixKVCache(12, 4, a_content()), r"of a prefix cache takes \(blocks"),
    ],
    ids=["arguments", "no manager", "no content"],
)
def test_a_factory_that_is_none_is_named(factory: Callable[..., Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_allocator(factory, examples=1)


def test_the_steps_that_lead_to_a_bug_are_few() -> None:
    """What a user reads: the manager, what is wrong, and a handful of calls."""
    with pytest.raises(AllocatorViolation) as caught:
        check_allocator(_factory(mutants.LeaksABlock))
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("LeaksABlock: ")
    assert lines[1] == "after these steps:"
    assert 3 <= len(lines) - 2 <= 6


def a_content() -> Content:
    one = np.ones(1, dtype=np.int32)
    return Content.of(
        Trace(np.zeros(1), one, one, TraceSource("one", "test", 1)), Outputs(one, one)
    )


def _factory(kind: type[KVCache]):  # type: ignore[no-untyped-def]
    def make(blocks: int, block_size: int, content: Content) -> KVCache:
        if issubclass(kind, PrefixCachedKVCache):
            return kind(blocks, block_size, content, HOST_BLOCKS)
        assert issubclass(kind, PagedKVCache)
        return kind(blocks, block_size, HOST_BLOCKS)

    return make
