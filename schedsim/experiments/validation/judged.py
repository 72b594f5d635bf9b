"""`Row`: one metric of a cell, measured and simulated, with all that says what to make of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from schedsim.experiments.validation.equivalence import Agreement, agreement
from schedsim.experiments.validation.metrics import JUDGED, METRICS, Margins, figure

Summary = dict[str, Any]

SLOWER = 0.01
"""By how much iterations are made slower, and faster, to see what that does to a metric."""


@dataclass(frozen=True, slots=True)
class Row:
    """A metric; `measured` has a value for each repeat, and is empty where one of them has none.

    `agreement` is None unless both sides have it. `amplification` says by how many per cent the
    metric grows when every iteration takes one per cent longer. `scatter` is the standard deviation
    of simulations that scatter, as a share of their mean, None without two of them.
    """

    name: str
    measured: tuple[float, ...]
    simulated: float | None
    agreement: Agreement | None
    amplification: float | None
    scatter: float | None

    @property
    def mean(self) -> float | None:
        """The mean of the repeats."""
        return sum(self.measured) / len(self.measured) if self.measured else None

    @property
    def is_judged(self) -> bool:
        """Whether it gets a verdict."""
        return self.agreement is not None and self.name in JUDGED

    def as_json(self) -> dict[str, Any]:
        """The fields as plain data; a verdict only where one is given."""
        found: dict[str, Any] = {} if self.agreement is None else self.agreement.as_json()
        if not self.is_judged:
            found = {name: found.get(name) for name in ("error", "spread")}
        return {
            "measured": self.mean,
            "repeats": list(self.measured),
            "simulated": self.simulated,
            **found,
            "amplification": self.amplification,
            "scatter": self.scatter,
        }


def rows_of(
    measured: Sequence[Summary],
    simulated: Summary,
    faster: Summary,
    slower: Summary,
    margins: Margins,
    draws: Sequence[Summary],
) -> dict[str, Row]:
    """Every metric; `faster` and `slower` are simulated with iterations `SLOWER` off either way,
    `draws` with iterations that scatter."""
    rows = {}
    for name in METRICS:
        there = [figure(summary, name) for summary in measured]
        repeats = tuple(value for value in there if value is not None)
        if len(repeats) < len(there):
            repeats = ()
        here, below, above = (figure(summary, name) for summary in (simulated, faster, slower))
        found = None
        if repeats and here is not None:
            found = agreement(repeats, here, margins.of(name))
        grows = None
        if here and below is not None and above is not None:
            grows = (above - below) / (2 * SLOWER * here)
        rows[name] = Row(name, repeats, here, found, grows, _scatter(draws, name))
    return rows


def _scatter(draws: Sequence[Summary], name: str) -> float | None:
    found = [figure(summary, name) for summary in draws]
    values = [value for value in found if value is not None]
    if len(values) < max(len(draws), 2) or not any(values):
        return None
    return float(np.std(values, ddof=1) / np.mean(values))
