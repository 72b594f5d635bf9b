"""What the README shows runs: its examples as printed, its commands with options that exist."""

import ast
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer.main

from schedsim.cli.app import app
from tests.cli.commands import schedsim

README = (Path(__file__).resolve().parents[1] / "README.md").read_text(encoding="utf-8")
EXAMPLES = dict(re.findall(r"<!-- example: (.+?) -->\n```python\n(.*?)```", README, re.DOTALL))
PYTHON = ["simulate", "own step time", "compare"]


class Line(NamedTuple):
    """A `schedsim` command of the README: the sub-commands, then what follows."""

    words: tuple[str, ...]
    options: tuple[str, ...]


def readme_lines() -> Iterator[Line]:
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL):
        for command in block.replace("\\\n", " ").replace("&&", "\n").splitlines():
            words = shlex.split(command, comments=True)
            if words and words[0].endswith("schedsim"):
                options = tuple(w.split("=")[0] for w in words if w.startswith("--"))
                yield Line(tuple(words[1:]), options)


LINES = list(readme_lines())


def test_the_examples_are_the_ones_tested_here() -> None:
    assert set(EXAMPLES) == {*PYTHON, "policy"}
    assert README.count("```python") == len(EXAMPLES)
    for code in EXAMPLES.values():
        ast.parse(code)


@pytest.mark.parametrize("name", PYTHON)
def test_a_python_example_runs_and_prints(name: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", EXAMPLES[name]],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert done.stdout.strip()


def test_the_policy_example_runs_as_the_readme_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (line,) = [line for line in LINES if any("short_first.py" in word for word in line.words)]
    (tmp_path / "short_first.py").write_text(EXAMPLES["policy"])
    monkeypatch.chdir(tmp_path)
    ended = schedsim(*line.words, "--limit", 300)
    assert ended.exit_code == 0, ended.stderr
    assert "ShortFirst" in ended.stdout


def test_the_main_command_runs() -> None:
    main = next(line for line in LINES if line.words[0] == "run")
    ended = schedsim(*main.words, "--limit", 100)
    assert ended.exit_code == 0, ended.stderr
    for policy in ("vllm", "vllm-v0", "sarathi", "static"):
        assert policy in ended.stdout


@pytest.mark.parametrize("line", LINES, ids=lambda line: " ".join(line.words)[:60])
def test_the_options_of_a_command_exist(line: Line) -> None:
    command: Any = typer.main.get_command(app)
    for word in line.words:
        if not hasattr(command, "commands"):
            break
        command = command.commands[word]
    known = {name for option in command.params for name in option.opts}
    assert set(line.options) <= known
