"""A single file that a command writes, refused before any work if it cannot be written."""

from pathlib import Path
from typing import Annotated

import typer

from schedsim.errors import OutputError

Force = Annotated[bool, typer.Option("--force", help="Replace an existing file.")]


def check_file(out: Path, force: bool) -> None:
    """Refuse before any work what could only fail after it.

    Raises:
        OutputError: the file exists and may not be replaced, or its folder does not exist.
    """
    if not out.parent.is_dir():
        raise OutputError(f"{out}: the folder {out.parent} does not exist; create it first")
    if out.is_dir():
        raise OutputError(f"{out} is a folder; give a file name")
    if out.exists() and not force:
        raise OutputError(f"{out} exists; choose another name or replace it with --force")
