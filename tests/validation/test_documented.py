"""docs/validate.md names every field that a validation writes, and none that it does not."""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from schedsim.experiments.validation.formula_blocks import FormulaBlocks
from schedsim.experiments.validation.request_errors import requests_table
from schedsim.experiments.validation.validating import Validation
from tests.pages import DOCS
from tests.validation.runs import LINEAR, settings, small_trace, stored, validated

PAGE = (DOCS / "validate.md").read_text()

BY_NAME = ("metrics", "requests", "by_kind", "error_budget", "policies")
"""Objects with a key for each metric, kind or cell."""

ELSEWHERE = ("step_time", "trace", "decisions", "load_shift", "adds", "shifts")
"""Objects of other pages, and figures by metric."""

ALIKE = {"cells[].steps.parts.device", "cells[].steps.parts.gap"}
"""Told with another one."""


@pytest.fixture(scope="module")
def validation(tmp_path_factory: pytest.TempPathFactory) -> Validation:
    """Of everything that there can be: saturated repeats, two policies, two rates."""
    folder = tmp_path_factory.mktemp("everything")
    trace = small_trace(rate=2000.0)
    asked: list[dict[str, Any]] = [{}, {"policy": "srtf"}, {"rate_scale": 0.5}]
    runs = [
        stored(folder / str(number), trace, settings(max_seqs=4, slo_ttft=1.0, **given))
        for number, given in enumerate(asked)
    ]
    again = settings(max_seqs=4, slo_ttft=1.0, step_time="roofline")
    repeat = stored(folder / "again", trace, again, decisions=True)
    repeat.manifest["config"]["step_time"] = LINEAR
    repeat.manifest["config"]["resolved"]["step_time"] = LINEAR
    found = validated(folder / "out", trace, [*runs, repeat], LINEAR)
    first, *others = found.cells
    assert len(first.cell.runs) == 2
    return replace(found, cells=(replace(first, blocks=FormulaBlocks(30, 31, {})), *others))


def objects_of(value: Any, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every object below `value` with the path that the page calls it by."""
    if isinstance(value, list):
        for each in value:
            yield from objects_of(each, f"{path}[]")
    if not isinstance(value, dict):
        return
    by_name = path.rpartition(".")[2] in BY_NAME
    if not by_name:
        yield path, value
    for key, each in value.items():
        if key not in ELSEWHERE or by_name:
            yield from objects_of(each, f"{path}.{'*' if by_name else key}".lstrip("."))


def test_every_field_of_the_file_is_named(validation: Validation) -> None:
    written: dict[str, set[str]] = defaultdict(set)
    for path, found in objects_of(validation.as_json(), ""):
        written[path or "the file"] |= found.keys()
    _, _, section = PAGE.partition("| in | fields | meaning |")
    table, _, _ = section.partition("\n\n")
    rows = re.findall(r"^\| `?([^|`]+?)`? \| (`[^|]+`) \|", table, re.MULTILINE)
    named = {path: set(re.findall(r"`([^`]+)`", fields)) for path, fields in rows}
    assert named == {path: fields for path, fields in written.items() if path not in ALIKE}


def test_every_column_of_the_requests_is_named(validation: Validation) -> None:
    (found, *_) = validation.cells
    table = requests_table([(found.cell.name, found.cell.runs, found.simulated.requests)])
    (told,) = re.findall(r"`requests\.parquet` has a row.*?\n\n", PAGE, re.DOTALL)
    plain, _, both = told.partition("`measured_…`")
    named = re.findall(r"`(\w+)`", plain)
    for name in re.findall(r"`(\w+)`", both):
        named += [f"measured_{name}", f"simulated_{name}"]
    assert set(table.column_names) == set(named)
