"""What a reproduction is made of: what was published, what was measured, and how both agree."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

Value = str | float | None
Row = dict[str, Value]
Verdict = Literal["agrees", "same direction", "differs", "not measured"]

TOLERANCE = 0.25
"""How far from what is published a figure of another machine's may be and still agree."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A published figure beside ours.

    `low` and `high` are what was published (equal unless it is a range), None for an order. `read`
    is false where the number could not be read in the publication itself. `why` is the cause of a
    difference, empty where there is none.
    """

    name: str
    published: str
    ours: str
    verdict: Verdict
    source: str
    read: bool
    why: str = ""
    low: float | None = None
    high: float | None = None
    value: float | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """A number that was published, with its unit, its place there, and why ours would differ.

    `high` makes it a range. A number has a direction from `neutral` (a factor from 1); None for one
    that has none.
    """

    name: str
    low: float
    source: str
    high: float | None = None
    unit: str = ""
    read: bool = True
    neutral: float | None = None
    why: str = ""

    def figure(self, ours: float | None, where: str = "") -> Figure:
        """This claim beside our value, None if there is none; `where` is added to its name."""
        high = self.low if self.high is None else self.high
        told = f"{self.low:,g}" if high == self.low else f"{self.low:,g} to {high:,g}"
        verdict = self._verdict(ours, high)
        return Figure(
            self.name + where,
            told + self.unit,
            "-" if ours is None else _plain(ours) + self.unit,
            verdict,
            self.source,
            self.read,
            "" if verdict == "agrees" else self.why,
            self.low,
            high,
            ours,
        )

    def _verdict(self, ours: float | None, high: float) -> Verdict:
        if ours is None:
            return "not measured"
        if self.low * (1 - TOLERANCE) <= ours <= high * (1 + TOLERANCE):
            return "agrees"
        if self.neutral is None or (ours - self.neutral) * (self.low - self.neutral) <= 0:
            return "differs"
        return "same direction"


@dataclass(frozen=True, slots=True)
class Order:
    """A shape that was published: which of several comes after which, the least first."""

    name: str
    least_first: tuple[str, ...]
    source: str
    read: bool = True
    why: str = ""

    def figure(self, values: Mapping[str, float], where: str = "") -> Figure:
        """This order beside that of our values; `where` is added to its name."""
        same = all(values[less] < values[more] for less, more in pairwise(self.least_first))
        ours = sorted(self.least_first, key=lambda label: values[label])
        told = ours[0]
        for less, more in pairwise(ours):
            told += f" {'<' if values[less] < values[more] else '='} {more}"
        return Figure(
            self.name + where,
            " < ".join(self.least_first),
            told,
            "agrees" if same else "differs",
            self.source,
            self.read,
            "" if same else self.why,
        )


@dataclass(frozen=True, slots=True)
class Trial:
    """One measurement: what tells it from the others, and how to make it."""

    labels: Row
    measure: Callable[[], Row]


class Reproduction(ABC):
    """A published experiment: its setup as data, its trials, and what its authors found.

    `notes` say in what the setup here is not the published one.
    """

    name: ClassVar[str]
    title: ClassVar[str]
    source: ClassVar[str]
    notes: ClassVar[tuple[str, ...]]

    @property
    @abstractmethod
    def setup(self) -> Any:
        """The setup, a frozen dataclass; it goes into the manifest."""

    @abstractmethod
    def trials(self, scale: float, seed: int) -> list[Trial]:
        """All measurements, with `scale` times the requests; draws are from `seed` alone."""

    @abstractmethod
    def figures(self, rows: Sequence[Row]) -> list[Figure]:
        """What was published beside the rows of all trials."""


def at_least(count: float, least: int) -> int:
    """A scaled count of requests, whole and not too small for its figures to exist."""
    return max(round(count), least)


def number(row: Row, name: str) -> float:
    """A figure of a row that is there in every run."""
    value = row[name]
    assert isinstance(value, int | float), f"{name} is {value!r}"
    return float(value)


def find(rows: Sequence[Row], **labels: Value) -> Row:
    """The one row with these labels."""
    (found,) = (row for row in rows if all(row.get(name) == labels[name] for name in labels))
    return found


def ratio(value: float | None, other: float | None) -> float | None:
    """`value` / `other`, None if one of them could not be found."""
    return None if value is None or not other else value / other


def _plain(value: float) -> str:
    """A number as tables show it."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.4g}"
