"""The page on reproductions holds what they find at full size."""

from pathlib import Path

import pytest

from schedsim.experiments.reproductions import REPRODUCTIONS
from tests.benchmarks.reproductions import rows

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reproductions.md"


@pytest.mark.slow
@pytest.mark.parametrize("name", REPRODUCTIONS)
def test_the_page_has_every_figure(name: str) -> None:
    page = PAGE.read_text(encoding="utf-8")
    for row in rows(name):
        assert row in page
