"""`compare_decisions`: the first iteration in which two decision records differ."""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any, NamedTuple

from schedsim.results.decision_file import DecisionFile

BEFORE = 3
"""Iterations before the first difference that are kept, to say in brief."""

_SHOWN_IDS = 12
_SHOWN_TEXT = 60


class Row(NamedTuple):
    """One thing that differs, with both sides as text; `-` where a side has nothing."""

    field: str
    first: str
    second: str


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two records part: the iteration (counted from 0), what differs, and what came before.

    `rows` has one entry a field, and one a request for scheduled entries and block tables.
    """

    iteration: int
    rows: list[Row]
    before: list[str]


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two records, read as far as they agree.

    `headings` name them. `iterations`, `scheduled` (entries) and `preemptions` count what is the
    same in both; `settings` are the differences of their `meta`, which need not change anything.
    """

    headings: tuple[str, str]
    iterations: int
    scheduled: int
    preemptions: int
    settings: list[Row]
    difference: Difference | None

    @property
    def same(self) -> bool:
        """Whether every iteration is the same, and neither record is longer."""
        return self.difference is None

    def as_json(self) -> dict[str, Any]:
        """The comparison as plain data."""
        difference = self.difference
        return {
            "same": self.same,
            "iterations": self.iterations,
            "scheduled": self.scheduled,
            "preemptions": self.preemptions,
            "settings": [row._asdict() for row in self.settings],
            "difference": None
            if difference is None
            else {
                "iteration": difference.iteration,
                "rows": [row._asdict() for row in difference.rows],
                "before": difference.before,
            },
        }


def compare_decisions(first: DecisionFile, second: DecisionFile) -> Comparison:
    """Read both records side by side until they differ; memory does not grow with their length.

    Raises:
        ResultError: a line of either is damaged or holds no record.
    """
    iterations = scheduled = preemptions = 0
    before: deque[str] = deque(maxlen=BEFORE)
    difference = None
    for one, other in zip_longest(first.lines(), second.lines()):
        record = None if one is None else first.record(*one)
        # Equal text is the common case by far: the second parse is for what differs.
        same_text = one is not None and other is not None and one[1] == other[1]
        partner = record if same_text else (None if other is None else second.record(*other))
        rows = [] if same_text else list(differing_rows(record, partner))
        if record is None or rows:
            difference = Difference(iterations, rows, list(before))
            break
        iterations += 1
        scheduled += len(record["scheduled"])
        preemptions += len(record["preempted"])
        before.append(brief(record))
    settings = list(_changed(first.meta, second.meta))
    headings = first.heading, second.heading
    return Comparison(headings, iterations, scheduled, preemptions, settings, difference)


def differing_rows(first: dict[str, Any] | None, second: dict[str, Any] | None) -> Iterator[Row]:
    """What differs in an iteration; a field that a record lacks counts as null."""
    if first is None or second is None:
        ended = "the record has ended"
        yield Row(
            "iteration",
            ended if first is None else brief(first),
            ended if second is None else brief(second),
        )
        return
    for name in dict.fromkeys([*first, *second]):
        one, other = first.get(name), second.get(name)
        if one == other:
            continue
        if name == "scheduled":
            yield from _scheduled(first[name], second[name])
        elif name == "blocks":
            yield from _blocks(first[name], second[name])
        elif isinstance(one, list) and isinstance(other, list):
            yield Row(name, *_lists(one, other))
        else:
            yield Row(name, _value(one), _value(other))


def _scheduled(first: list[list[Any]], second: list[list[Any]]) -> Iterator[Row]:
    """Entries side by side by request; the order alone if that is all that differs."""
    entries = {entry[0]: _entry(entry) for entry in first}
    others = {entry[0]: _entry(entry) for entry in second}
    rows = list(_changed(entries, others, "scheduled "))
    yield from rows
    if not rows:
        names = [entry[0] for entry in first], [entry[0] for entry in second]
        yield Row("scheduled, in order", *_lists(*names))


def _entry(entry: list[Any]) -> str:
    _, tokens, kind, context = entry
    return f"{tokens} tokens after {context}, {kind}"


def _blocks(first: dict[str, list[Any]], second: dict[str, list[Any]]) -> Iterator[Row]:
    for name in dict.fromkeys([*first, *second]):
        one, other = first.get(name), second.get(name)
        if one == other:
            continue
        if one is None or other is None:
            yield Row(f"blocks {name}", _table(one), _table(other))
        else:
            yield Row(f"blocks {name}", *_lists(one, other))


def _table(blocks: list[Any] | None) -> str:
    return "-" if blocks is None else _lists(blocks, [])[0]


def _lists(first: list[Any], second: list[Any]) -> tuple[str, str]:
    """Two lists as text, from a little before their first difference on."""
    pairs = enumerate(zip(first, second, strict=False))
    same = next((i for i, (one, other) in pairs if one != other), min(len(first), len(second)))
    start = max(0, same - 2) if same > _SHOWN_IDS // 2 else 0
    return _from(first, start), _from(second, start)


def _from(values: list[Any], start: int) -> str:
    shown = values[start : start + _SHOWN_IDS]
    text = " ".join(map(str, shown)) or "nothing"
    head = f"… from place {start}: " if start else ""
    left = len(values) - start - len(shown)
    return head + text + (f" … ({left} more)" if left > 0 else "")


def _changed(first: dict[str, Any], second: dict[str, Any], prefix: str = "") -> Iterator[Row]:
    for name in dict.fromkeys([*first, *second]):
        if first.get(name) != second.get(name):
            yield Row(prefix + name, _value(first.get(name)), _value(second.get(name)))


def _value(value: Any) -> str:
    text = "-" if value is None else str(value)
    return text if len(text) <= _SHOWN_TEXT else text[: _SHOWN_TEXT - 1] + "…"


def brief(record: dict[str, Any]) -> str:
    """A record in one line."""
    return (
        f"step {record.get('step')}: {len(record['scheduled'])} scheduled, "
        f"{record.get('total_tokens')} tokens, {len(record['preempted'])} preempted, "
        f"{len(record['finished'])} finished, {len(record['waiting'])} waiting, "
        f"{record.get('free_after_update')} blocks free"
    )
