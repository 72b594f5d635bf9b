"""The most memory that running requests will need at once, if their lengths are as expected."""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from schedsim.request import Request

Ints = npt.NDArray[np.int64]


class Growth(NamedTuple):
    """Requests that hold `tokens` each, and take one more in each of `left` iterations."""

    left: Ints
    tokens: Ints

    def peak(self) -> int:
        """The most tokens held at once, as all take one in every iteration until they leave.

        That is just before somebody leaves: with the longest-lived first it is the largest of
        Σ_{i ≤ k} tokens_i + k · left_k.
        """
        order = np.argsort(-self.left, kind="stable")
        count = np.arange(1, len(order) + 1)
        held = np.cumsum(self.tokens[order]) + count * self.left[order]
        return int(held.max(initial=0))

    def joined(self, other: "Growth") -> "Growth":
        """Both together."""
        left = np.concatenate([self.left, other.left])
        return Growth(left, np.concatenate([self.tokens, other.tokens]))


def growth(
    prompts: Iterable[int] | Ints,
    held: Iterable[int] | Ints,
    outputs: Iterable[int] | Ints,
    block_size: int,
    late: int = 0,
) -> Growth:
    """How requests that hold `held` tokens grow if they emit `outputs` tokens in all.

    They stay `late` iterations longer. A block is taken whole, so that a request may take
    `block_size` - 1 tokens more than it has; the last token is never stored.
    """
    tokens = np.asarray(held, dtype=np.int64)
    ends = np.asarray(prompts, dtype=np.int64) + np.asarray(outputs, dtype=np.int64) - 1
    return Growth(np.maximum(ends - tokens, 0) + late, tokens + block_size - 1)


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
