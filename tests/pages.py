"""A page of the documentation, typed in from its first line to its last in one folder."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

DOCS = Path(__file__).resolve().parents[1] / "docs"
BLOCK = re.compile(r"(?:<!-- (?P<note>.+?) -->\n)?```(?P<kind>\w*)\n(?P<text>.*?)```\n", re.DOTALL)


class Block(NamedTuple):
    """A fenced block of a page, and what the comment before it says of it."""

    note: str
    kind: str
    text: str


def blocks_of(page: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    return [
        Block(found["note"] or "", found["kind"], found["text"])
        for found in BLOCK.finditer(page.read_text(encoding="utf-8"))
    ]


def type_in_page(page: Path, folder: Path) -> list[str]:
    """Write its files, run its commands, compare what they print; the commands left out, if any.

    A block of files is marked `file: NAME` or `edit: NAME`, a command may be marked `fails`,
    `not run: WHY` or `needs PACKAGE`; the block after a command shows what it prints.
    """
    printed: str | None = None
    missing = []
    for block in blocks_of(page):
        if block.note.startswith(("file: ", "edit: ")):
            write(block, folder)
        elif block.kind == "sh":
            printed = None
            needed = block.note.removeprefix("needs ")
            if needed != block.note and importlib.util.find_spec(needed) is None:
                missing.append(block.text)
            elif not block.note.startswith("not run"):
                printed = type_in(block, folder)
        elif not block.kind and printed is not None:
            assert_shown(block.text, printed)
    return missing


def write(block: Block, folder: Path) -> None:
    """A whole file, or the line of it that begins as this one does."""
    action, _, name = block.note.partition(": ")
    path = folder / name
    if action == "file":
        path.write_text(block.text, encoding="utf-8")
        return
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
