"""Policies by name: shipped, installed under the entry-point group, from a file or a module."""

from pathlib import Path

import pytest

from schedsim.errors import ConfigError, PolicyError
from schedsim.policies import POLICIES, Policy, Sarathi
from schedsim.policies.loading import installed_policies, make_policy
from tests.core.harness import Jobs, simulate

SHORTEST = '''
from __future__ import annotations

from dataclasses import dataclass

from schedsim import Policy, Request


@dataclass(slots=True)
class Shortest(Policy):
    """Shortest prompt first, or the longest."""

    sign: int = 1
    after: float | None = None

    def key(self, request: Request) -> int:
        return self.sign * request.prompt_tokens


class Plain(Policy):
    """No dataclass, no parameters."""


class NotOne:
    """No policy."""
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the module path with `shortest_first.py` in it."""
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "shortest_first.py"
    path.write_text(SHORTEST)
    return path


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_shipped_policies_are_found_by_name(name: str) -> None:
    policy = make_policy(name)
    assert type(policy) is POLICIES[name]
    assert policy.name == name


def test_parameters_reach_the_policy() -> None:
    assert make_policy("sarathi,chunk_size=64,watermark=0.1") == Sarathi(64, 0.1)
    assert make_policy("sarathi:64") == Sarathi(64)


def orders(policy: Policy) -> list[int]:
    return simulate(policy, Jobs([9, 3, 6], [1] * 3), seats=1).admissions()


@pytest.mark.parametrize("place", ["file", "module"])
def test_a_class_in_a_file_or_module_is_a_policy(module: Path, place: str) -> None:
    where = str(module) if place == "file" else "shortest_first"
    assert orders(make_policy(f"{where}:Shortest")) == [1, 2, 0]
    longest = make_policy(f"{where}:Shortest,sign=-1,after=none")
    assert orders(longest) == [0, 2, 1]
    assert longest.name == "Shortest"
    assert orders(make_policy(f"{where}:Plain")) == [0, 1, 2]


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ("{file}:Shortset", r"no policy class 'Shortset'.*'Shortest'"),
        ("{file}:NotOne", r"no policy class 'NotOne'.*Plain, Shortest"),
        ("{file}:Shortest,sing=2", r"has no parameter 'sing'. Did you mean 'sign'\?"),
        ("{file}:Shortest,sign=up", "must be a whole number"),
        ("{file}:Plain,sign=1", "has no parameter 'sign'"),
        ("{folder}/missing.py:Shortest", "is not there"),
        ("no_such_module:Shortest", "'no_such_module' is not installed"),
        ("shortest_first.sub:Shortest", "shortest_first"),
        ("valm", r"Did you mean 'vllm'\?"),
    ],
)
def test_what_is_not_there_is_told(module: Path, spec: str, problem: str) -> None:
    with pytest.raises((ConfigError, PolicyError), match=problem):
        make_policy(spec.format(file=module, folder=module.parent))


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("def broken(:", "syntax error"),
        ("import no_such_dependency", "no_such_dependency"),
        ("1 / 0", r"ZeroDivisionError: division by zero .*line 1"),
    ],
)
@pytest.mark.parametrize("place", ["file", "module"])
def test_code_that_does_not_import_is_told_with_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, source: str, problem: str, place: str
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "does_not_import.py"
    path.write_text(source)
    spec = f"{path}:Any" if place == "file" else "does_not_import:Any"
    with pytest.raises(PolicyError, match=problem):
        make_policy(spec)


def test_a_missing_dependency_is_not_taken_for_the_module_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "zz_policy.py").write_text("import zz\n")
    with pytest.raises(PolicyError, match="No module named 'zz'"):
        make_policy("zz_policy:Any")


def test_a_constructor_that_raises_is_told(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    source = "from schedsim import Policy\nclass Mine(Policy):\n"
    path.write_text(source + "    def __init__(self) -> None:\n        raise OSError('no luck')\n")
    with pytest.raises(PolicyError, match=r"its constructor raised OSError: no luck .*line 4"):
        make_policy(f"{path}:Mine")


@pytest.fixture
def installed(module: Path) -> Path:
    """The module as an installed package that registers its policies."""
    info = module.parent / "shortest_first-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: shortest-first\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[schedsim.policies]\n"
        "shortest = shortest_first:Shortest\n"
        "wrong = shortest_first:NotOne\n"
        "gone = no_such_module:Gone\n"
    )
    return module


@pytest.mark.usefixtures("installed")
def test_installed_policies_are_found_by_their_entry_points() -> None:
    assert {"shortest", "wrong", "gone"} <= set(installed_policies())
    policy = make_policy("shortest,sign=-1")
    assert orders(policy) == [0, 2, 1]


@pytest.mark.usefixtures("installed")
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("wrong", "'wrong' is no subclass of schedsim"),
        ("gone", "installed policy 'gone' raised ModuleNotFoundError"),
        ("shortets", r"Did you mean 'shortest'\?"),
    ],
)
def test_a_wrong_entry_point_is_told(name: str, problem: str) -> None:
    with pytest.raises((ConfigError, PolicyError), match=problem):
        make_policy(name)


def test_the_shipped_name_wins(installed: Path) -> None:
    points = installed.parent / "shortest_first-1.0.dist-info" / "entry_points.txt"
    points.write_text("[schedsim.policies]\nvllm = shortest_first:Shortest\n")
    assert type(make_policy("vllm")) is POLICIES["vllm"]
