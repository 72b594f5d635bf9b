"""`Search`: bisection for the highest value that keeps the conditions."""

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from schedsim.errors import ConfigError
from schedsim.sweep.config import CapacityConfig

_CONDITION = re.compile(r"\s*([\w.]+)\s*(<=|>=)\s*([-+.\deE]+)\s*")
_SIGNS: dict[str, Callable[[float, float], bool]] = {"<=": operator.le, ">=": operator.ge}


class Condition(NamedTuple):
    """A figure of the summary that must not be above, or below, a bound."""

    figure: str
    sign: str
    bound: float

    def holds(self, row: Mapping[str, Any]) -> bool:
        """Whether a run keeps it; one without the figure does not."""
        value = row.get(self.figure)
        return value is not None and _SIGNS[self.sign](value, self.bound)


def parse_condition(text: str) -> Condition:
    """A condition from `latency.whole.ttft_s.p99 <= 0.5`.

    Raises:
        ConfigError: it is none.
    """
    found = _CONDITION.fullmatch(text)
    try:
        if found is None:
            raise ValueError
        return Condition(found[1], found[2], float(found[3]))
    except ValueError:
        raise ConfigError(
            f"capacity: keep {text!r}: write FIGURE <= NUMBER or FIGURE >= NUMBER, with a figure "
            "of the summary such as latency.whole.ttft_s.p99"
        ) from None


class Search:
    """The values to try, one after the other, and what is known of the capacity so far.

    It assumes that whoever keeps the conditions at a value keeps them at each lower one. What it
    tries depends on the answers alone, so a search that was broken off goes on by being told again.
    """

    def __init__(self, config: CapacityConfig) -> None:
        self._config = config
        self._conditions = [parse_condition(text) for text in config.keep]
        self.kept: float | None = None
        self.missed: float | None = None

    def next_value(self) -> float | None:
        """The value to try next; None when the capacity is known."""
        config = self._config
        if self.kept is None:
            return config.low if self.missed is None else None
        if self.missed is None:
            return config.high if self.kept < config.high else None
        if self.missed <= self.kept * (1 + config.tolerance):
            return None
        return math.sqrt(self.kept * self.missed)

    def keeps(self, row: Mapping[str, Any]) -> bool:
        """Whether a run kept all conditions; one that failed did not."""
        return row.get("error") is None and all(c.holds(row) for c in self._conditions)

    def tell(self, value: float, row: Mapping[str, Any]) -> None:
        """What came of the run at `value`, the value asked for last."""
        if self.keeps(row):
            self.kept = value
        else:
            self.missed = value


def unknown_figures(keep: Sequence[str], row: Mapping[str, Any]) -> list[str]:
    """The figures in conditions that no run of this kind has."""
    return [c.figure for c in map(parse_condition, keep) if c.figure not in row]
