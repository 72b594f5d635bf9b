"""What a design of batches is: a script of every iteration, and what the engine can run."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Limits:
    """What an engine can run: seats, tokens of an iteration, of a request, and in the cache.

    `held(prompt, output)` are the cache's slots that a request of these lengths takes. `host_slots`
    is 0 where nothing can be swapped out. `outgrows` says that a request whose prediction was too
    short is moved, `compacts` that all are moved together for one that finds no room.
    """

    max_seqs: int
    token_budget: int
    max_model_len: int
    slots: int
    held: Callable[[int, int], int]
    host_slots: int = 0
    outgrows: bool = False
    compacts: bool = False


class Turn(NamedTuple):
    """One iteration: who leaves before it, which chunks run, whether all decodes do.

    `chunks` are (request, tokens); who waits is admitted. `swap_out` leaves for the host's memory,
    `swap_in` comes back. `counts` says whether it is a measurement.
    """

    leave: tuple[int, ...] = ()
    chunks: tuple[tuple[int, int], ...] = ()
    decodes: bool = False
    swap_out: int | None = None
    swap_in: int | None = None
    counts: bool = True


Batch = tuple[Turn, ...]
"""The iterations that lead to one batch of the design and measure it."""

Stage = list[Batch]


@dataclass(slots=True)
class Design:
    """The script, pass by pass, and the requests that it names by their place.

    No request emits all its `outputs`. `predicted` is what their predictor says, NaN for nothing.
    """

    warm_up: Stage = field(default_factory=list)
    passes: list[list[Stage]] = field(default_factory=list)
    prompts: list[int] = field(default_factory=list)
    outputs: list[int] = field(default_factory=list)
    predicted: list[float] = field(default_factory=list)

    @property
    def planned(self) -> int:
        """Batches of the first pass; the others have about as many."""
        return sum(len(stage) for stage in self.passes[0])


def log_uniform(
    low: int, high: int, size: int, rng: np.random.Generator
) -> npt.NDArray[np.float64]:
    """Numbers of which as many are between any two as between their doubles."""
    drawn: npt.NDArray[np.float64] = low * np.exp(np.log(high / low) * rng.random(size))
    return drawn
