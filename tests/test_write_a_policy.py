"""docs/write-a-policy.md, typed in from its first line to its last: it prints what it shows."""

import re
from pathlib import Path

import pytest

from tests.pages import DOCS, blocks_of, type_in_page

PAGE = DOCS / "write-a-policy.md"


def test_the_page_does_what_it_says(tmp_path: Path) -> None:
    missing = type_in_page(PAGE, tmp_path)
    if missing:
        pytest.skip(f"torch is not installed, so these were not run:\n{''.join(missing)}")


def test_the_page_is_read_whole() -> None:
    blocks = blocks_of(PAGE)
    assert 2 * len(blocks) == len(re.findall(r"^```", PAGE.read_text(), re.MULTILINE))
    assert {block.kind for block in blocks} == {"python", "sh", ""}
    assert all(
        block.note.startswith(("file: ", "edit: ")) for block in blocks if block.kind == "python"
    )
    assert sum(block.note.startswith("not run") for block in blocks) == 1
