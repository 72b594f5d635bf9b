"""From cells to answers: the decomposition over the changes from naive static batching to paging,
and ratios of two cells, each with the interval over the repeats."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from schedsim.experiments.ablation.cells import (
    CONTINUOUS,
    EXACT,
    MAXIMUM,
    NAIVE,
    PAGED,
    STATIC,
    Cell,
    own_kernel,
)
from schedsim.experiments.ablation.questions import QUESTIONS, Question
from schedsim.experiments.ablation.shapley import (
    Applied,
    Decomposition,
    Value,
    decompose,
    feasible_sets,
)
from schedsim.experiments.intervals import Values

LEVEL = 0.05
"""The chance with which an interval misses."""

BATCH_SIZE, ITERATIONS, LENGTHS, BLOCKS, KERNEL = CHANGES = (
    "batch size",
    "continuous batching",
    "exact lengths",
    "paging",
    "paged kernel",
)
"""From naive static batches in memory reserved to the maximum, to continuous batching on paged
memory, in the order in which they are shown."""

AFTER: Mapping[str, Sequence[str]] = {
    ITERATIONS: [BATCH_SIZE],
    BLOCKS: [LENGTHS, KERNEL],
}
"""What can only be done after what: a batch has a size to tune until batching is continuous, and
paged memory needs the kernel that reads it. That lengths come before blocks is by definition, not
by need: paging replaces exact room, and is told as what it adds to that."""

MEANINGS: Mapping[str, str] = {
    BATCH_SIZE: "the best static batch instead of the largest that can never overflow",
    ITERATIONS: "requests join and leave in every iteration",
    LENGTHS: "room for prompt and true output instead of the longest context",
    BLOCKS: "room block by block, when a token needs it",
    KERNEL: "attention through a block table",
}

GROUPS: Mapping[str, Sequence[str]] = {
    "scheduling": (BATCH_SIZE, ITERATIONS),
    "memory": (LENGTHS, BLOCKS),
}
"""Changes that are told together, too."""

Rates = Mapping[Cell, Sequence[float]]
"""Of each cell a rate above 0 in each repeat."""


class Factor(NamedTuple):
    """A ratio with its interval, None where there is one repeat."""

    value: float
    low: float | None
    high: float | None

    @classmethod
    def of_logs(cls, logs: Sequence[float]) -> "Factor":
        """The geometric mean over the repeats; Student's interval on the logarithms."""
        values = np.array(logs)
        mean = float(values.mean())
        if len(values) < 2:
            return cls(math.exp(mean), None, None)
        half = Values.of_mean(values).estimate.half_width(LEVEL)
        return cls(math.exp(mean), math.exp(mean - half), math.exp(mean + half))


@dataclass(frozen=True, slots=True)
class ChangeFactor:
    """What a change contributes; `least` and `most` are those of any order, on the means."""

    change: str
    factor: Factor
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class Factors:
    """The decomposition of `whole`, the rate of the last system over that of the first.

    `groups` are the products of the changes of each of `GROUPS` that are all among them.
    `interactions` are above 1 where two changes bring more together than each alone.
    """

    first: Cell
    last: Cell
    whole: Factor
    changes: list[ChangeFactor]
    groups: dict[str, Factor]
    interactions: dict[tuple[str, str], Factor]


def system(applied: Applied, changes: Sequence[str] = CHANGES) -> Cell:
    """The cell in which these of the `changes` are made; memory has its own kernel if that is none.

    Raises:
        AssertionError: an unknown change.
    """
    assert set(applied) <= set(CHANGES), f"unknown changes in {sorted(applied)}"
    scheduling = STATIC if BATCH_SIZE in applied else NAIVE
    if ITERATIONS in applied:
        scheduling = CONTINUOUS
    memory = EXACT if LENGTHS in applied else MAXIMUM
    if BLOCKS in applied:
        memory = PAGED
    if KERNEL not in changes:
        return own_kernel(scheduling, memory)
    return Cell(scheduling, memory, "paged" if KERNEL in applied else "contiguous")


def factors_of(
    rates: Rates, *, tuned: bool = False, changes: Sequence[str] = CHANGES
) -> Factors | None:
    """The decomposition over `changes`; from `tuned` static batching on instead of naive.

    None where a cell on the way has no rates.
    """
    made = frozenset({BATCH_SIZE} if tuned else ())
    left = [change for change in changes if change not in made]
    after = {change: [other for other in AFTER.get(change, ()) if other in left] for change in left}
    cells = {applied: system(applied | made, changes) for applied in feasible_sets(left, after)}
    if not set(cells.values()) <= rates.keys():
        return None
    logs = {applied: np.log(rates[cell]) for applied, cell in cells.items()}

    def in_repeat(repeat: int) -> Value:
        return lambda applied: float(logs[applied][repeat])

    each = [decompose(in_repeat(r), left, after) for r in range(len(logs[frozenset()]))]
    mean = decompose(lambda applied: float(logs[applied].mean()), left, after)
    return Factors(
        first=cells[frozenset()],
        last=cells[frozenset(left)],
        whole=Factor.of_logs([one.total for one in each]),
        changes=[_change(change, each, mean) for change in left],
        groups={
            name: Factor.of_logs([sum(one.contributions[c].mean for c in group) for one in each])
            for name, group in GROUPS.items()
            if set(group) <= set(left)
        },
        interactions={
            pair: Factor.of_logs([one.interactions[pair] for one in each])
            for pair in mean.interactions
        },
    )


def _change(change: str, each: Sequence[Decomposition], mean: Decomposition) -> ChangeFactor:
    of_all = mean.contributions[change]
    return ChangeFactor(
        change,
        Factor.of_logs([one.contributions[change].mean for one in each]),
        math.exp(of_all.least),
        math.exp(of_all.most),
    )


@dataclass(frozen=True, slots=True)
class Answers:
    """What follows from the rates of all cells by one `measure`."""

    measure: str
    factors: list[Factors]
    ratios: list[tuple[Question, Factor]]


def answer(measure: str, rates: Rates, changes: Sequence[str] = CHANGES) -> Answers:
    """The decomposition from naive and from tuned static batching, and every ratio; those left out
    ask for a cell that has no rates."""
    found = [factors_of(rates, tuned=tuned, changes=changes) for tuned in (False, True)]
    return Answers(
        measure,
        [factors for factors in found if factors is not None],
        [
            (question, _ratio(rates, question))
            for question in QUESTIONS
            if {question.over, question.under} <= rates.keys()
        ],
    )


def _ratio(rates: Rates, question: Question) -> Factor:
    pairs = zip(rates[question.over], rates[question.under], strict=True)
    return Factor.of_logs([math.log(over / under) for over, under in pairs])
