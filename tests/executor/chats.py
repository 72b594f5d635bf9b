"""A trace of conversations for the engine's tests: prompts that share beginnings, of many users."""

import dataclasses

import numpy as np

import schedsim
from schedsim.traces.trace import PromptBlocks
from tests.core.harness import Jobs


def chats() -> schedsim.Trace:
    """Nine chats of three turns; the first turns begin with one of two system prompts."""
    first = list(range(9))
    prompts = (
        [16 + row for row in first] + [40 + row for row in first] + [64 + row for row in first]
    )
    outputs = [14 + row % 3 for row in range(27)]
    parents = [-1] * 9 + list(range(18))
    trace = Jobs(prompts, outputs, parents=parents).trace()
    chains = [[100 + row % 2] if row < 9 else [] for row in range(27)]
    offsets = np.cumsum([0, *map(len, chains)])
    ids = np.array([block for chain in chains for block in chain])
    blocks = PromptBlocks(12, offsets.astype(np.int64), ids.astype(np.int64))
    return dataclasses.replace(trace, blocks=blocks, session=np.arange(27) % 9)
