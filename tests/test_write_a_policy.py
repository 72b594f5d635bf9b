"""docs/write-a-policy.md, typed in from its first line to its last: it prints what it shows."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

PAGE = Path(__file__).resolve().parents[1] / "docs" / "write-a-policy.md"
BLOCK = re.compile(r"(?:<!-- (?P<note>.+?) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)```\n", re.DOTALL)
HAS_TORCH = importlib.util.find_spec("torch") is not None


class Block(NamedTuple):
    """A fenced block of the page, and what the comment before it says of it."""

    note: str
    kind: str
    text: str


BLOCKS = [
    Block(found["note"] or "", found["kind"], found["text"])
    for found in BLOCK.finditer(PAGE.read_text(encoding="utf-8"))
]


def write(block: Block, folder: Path) -> None:
    """A whole file, or the line of it that begins as this one does."""
    action, _, name = block.note.partition(": ")
    path = folder / name
    if action == "file":
        path.write_text(block.text, encoding="utf-8")
        return
    assert action == "edit", f"a code block is a file or an edit, not {block.note!r}"
    begins = block.text.partition("=")[0]
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    (place,) = [i for i, line in enumerate(lines) if line.startswith(f"{begins}=")]
    lines[place] = block.text
    path.write_text("".join(lines), encoding="utf-8")


def type_in(block: Block, folder: Path) -> str:
    """What the commands of a block print; the last one fails where the page says so."""
    bins = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{bins}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-ec", block.text],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=folder,
        env=environment,
    )
    assert (done.returncode != 0) == (block.note == "fails"), f"{done.stdout}\n{done.stderr}"
    return done.stdout


def assert_shown(shown: str, printed: str) -> None:
    """Every line of `shown` is printed, in order; `…` stands for anything."""
    pattern = ".*?".join(re.escape(part) for part in shown.split("…"))
    assert re.fullmatch(pattern, f"{printed.rstrip()}\n", re.DOTALL), (
        f"the page shows\n{shown}\nand what came is\n{printed}"
    )


def test_the_page_does_what_it_says(tmp_path: Path) -> None:
    printed: str | None = None
    missing = []
    for block in BLOCKS:
        if block.kind == "python":
            write(block, tmp_path)
        elif block.kind == "sh":
            printed = None
            if block.note == "needs torch" and not HAS_TORCH:
                missing.append(block.text)
            elif not block.note.startswith("not run"):
                printed = type_in(block, tmp_path)
        elif printed is not None:
            assert_shown(block.text, printed)
    if missing:
        pytest.skip(f"torch is not installed, so these were not run:\n{''.join(missing)}")


def test_the_page_is_read_whole() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert 2 * len(BLOCKS) == len(re.findall(r"^```", text, re.MULTILINE))
    assert {block.kind for block in BLOCKS} == {"python", "sh", ""}
    assert sum(block.note.startswith("not run") for block in BLOCKS) == 1
