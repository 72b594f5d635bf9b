"""Every command's help ends in examples, whose options exist; those that need no file run."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer.main

from schedsim.cli import compare, report, sweep
from schedsim.cli.app import app
from tests.cli.commands import schedsim

ROOT: Any = typer.main.get_command(app)


class Command(NamedTuple):
    """A command, the words that call it, and the text in which its examples stand."""

    words: tuple[str, ...]
    command: Any
    text: str


def commands(group: Any = ROOT, words: tuple[str, ...] = ()) -> Iterator[Command]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*words, name))
        else:
            text = f"{command.help or ''}\n{command.epilog or ''}"
            yield Command((*words, name), command, text)


COMMANDS = list(commands())


def examples(text: str) -> list[list[str]]:
    """The commands in a text, without the remarks in parentheses behind them."""
    joined = re.sub(r"\\\n\s*", " ", text)
    lines = re.findall(r"^(?:Example: )?\s*(schedsim .+)$", joined, re.MULTILINE)
    return [shlex.split(re.sub(r"\s\(.*\)$", "", line))[1:] for line in lines]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command.words))
def test_a_command_has_examples_with_options_that_it_has(command: Command) -> None:
    own = [e for e in examples(command.text) if tuple(e[: len(command.words)]) == command.words]
    assert own, f"{' '.join(command.words)} has no example"
    known = {name for option in command.command.params for name in option.opts} | {"-q"}
    for example in own:
        options = {word.split("=")[0] for word in example if word.startswith("--")}
        assert options <= known


@pytest.mark.parametrize("module", [compare, sweep, report], ids=lambda module: module.__name__)
def test_the_examples_of_every_day_run_one_after_the_other(
    module: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if module is not compare:
        pytest.importorskip("altair")
    monkeypatch.chdir(tmp_path)
    for example in examples(module.EXAMPLES):
        into = None
        if ">" in example:
            example, into = example[: example.index(">")], example[-1]
        if example[0] == "sweep":
            example = [*example, "--jobs", "1"]
        ended = schedsim(*example)
        assert ended.exit_code == 0, f"{example}: {ended.stderr}"
        if into is not None:
            Path(into).write_text(ended.stdout)
