"""The most memory that running requests will need at once, if their lengths are as expected."""

from collections.abc import Iterable
from typing import NamedTuple

from schedsim.request import Request


class Growth(NamedTuple):
    """A request that holds `tokens`, and takes one more in each of `left` iterations."""

    left: int
    tokens: int


def growth(request: Request, held: int, output: int, block_size: int, late: int = 0) -> Growth:
    """How `request`, which is to hold `held` tokens, grows if it emits `output` tokens in all.

    It stays `late` iterations longer. A block is taken whole, so that a request may take
    `block_size` - 1 tokens more than it has; the last token is never stored.
    """
    left = max(request.prompt_tokens + output - 1 - held, 0)
    return Growth(left + late, held + block_size - 1)


def peak_tokens(growths: Iterable[Growth]) -> int:
    """The most tokens held at once, as all take one in every iteration until they leave.

    That is just before somebody leaves: with the longest-lived first it is the largest of
    Σ_{i ≤ k} tokens_i + k · left_k.
    """
    peak = held = 0
    for count, (left, tokens) in enumerate(sorted(growths, reverse=True), start=1):
        held += tokens
        peak = max(peak, held + count * left)
    return peak


def expected_output(request: Request) -> int:
    """The predicted output in tokens, doubled as often as it was outgrown; else the limit."""
    limit = request.output_limit
    if request.predicted_output is None:
        return limit
    generated = request.num_generated_tokens
    output = max(1, round(request.predicted_output))
    while output <= generated and output < limit:
        output *= 2
    return min(output, limit)
