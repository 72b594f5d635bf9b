"""The whole command line as a test meets it: in this process, or in one of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from typer.testing import CliRunner

from schedsim.cli import with_check_value
from schedsim.cli.app import app

RESULTS = {"manifest.json", "summary.json", "requests.parquet", "steps.parquet"}


class Ended(NamedTuple):
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def notes(self) -> list[str]:
        return [line for line in self.stderr.splitlines() if line.startswith("note: ")]


def schedsim(*arguments: object) -> Ended:
    """Run a command in this process; what is no user's mistake is raised."""
    texts = with_check_value([str(argument) for argument in arguments])
    result = CliRunner().invoke(app, texts)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return Ended(result.exit_code, result.stdout, result.stderr)


def refused(*arguments: object) -> str:
    """The one message of a command that must end with exit code 2 before it printed anything."""
    ended = schedsim(*arguments)
    assert ended.exit_code == 2, ended
    assert ended.stdout == ""
    return only_error(ended)


def only_error(ended: Ended) -> str:
    """The single line on stderr that is no note."""
    lines = [line for line in ended.stderr.splitlines() if not line.startswith("note: ")]
    assert len(lines) == 1, ended.stderr
    assert lines[0].startswith("error: ")
    return lines[0]


def process(
    *arguments: object,
    stdout: Any = subprocess.PIPE,
    prepare: Callable[[], None] | None = None,
    folder: Path | None = None,
) -> Ended:
    """Run a command in a process of its own."""
    done = subprocess.run(
        command(arguments),
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        preexec_fn=prepare,
        cwd=folder,
        env=plain_environment(),
    )
    return Ended(done.returncode, done.stdout or "", done.stderr)


def start(*arguments: object) -> "subprocess.Popen[str]":
    """Start a command that takes Ctrl-C as one on a terminal does."""
    return subprocess.Popen(
        command(arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background may have been told to ignore it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        env=plain_environment(),
    )


def command(arguments: Sequence[object]) -> list[str]:
    code = "from schedsim.cli import main; main()"
    return [sys.executable, "-c", code, *map(str, arguments)]


def plain_environment() -> dict[str, str]:
    """No colours, no terminal width of whoever runs the tests."""
    environment = {key: os.environ[key] for key in os.environ if key not in ("COLUMNS",)}
    return {**environment, "NO_COLOR": "1"}


def manifest(directory: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((directory / "manifest.json").read_text())
    return loaded


def summary(directory: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((directory / "summary.json").read_text())
    return loaded


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}
