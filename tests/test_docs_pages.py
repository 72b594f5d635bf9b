"""The pages for every day do what they say, typed in from the first line to the last."""

import re
from pathlib import Path

import pytest
import typer.main

from schedsim.cli.app import app
from schedsim.traces.readers import FORMATS
from tests.pages import DOCS, blocks_of, type_in_page

PAGES = ("quick-start", "trace-formats", "write-a-memory-manager", "compare", "sweep", "report")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_does_what_it_says(name: str, tmp_path: Path) -> None:
    missing = type_in_page(DOCS / f"{name}.md", tmp_path)
    if missing:
        pytest.skip(f"not installed, so these were not run:\n{''.join(missing)}")


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_read_whole(name: str) -> None:
    page = DOCS / f"{name}.md"
    blocks = blocks_of(page)
    assert 2 * len(blocks) == len(re.findall(r"^```", page.read_text(), re.MULTILINE))
    assert all(block.note.startswith("file: ") for block in blocks if block.kind not in ("sh", ""))


def test_every_format_has_its_line() -> None:
    text = (DOCS / "trace-formats.md").read_text()
    assert re.findall(r"^\| `([\w-]+)` \|", text, re.MULTILINE)[: len(FORMATS)] == list(FORMATS)


def test_every_command_has_its_line() -> None:
    text = (DOCS / "command-line.md").read_text()
    group = typer.main.get_command(app)
    told = set(re.findall(r"^\| `schedsim ([\w -]+)", text, re.MULTILINE))
    commands = getattr(group, "commands", {})
    assert {name.split()[0] for name in map(str.strip, told)} == set(commands)
