"""`schedsim execute` where torch is not installed: everything else works, and it says so."""

from importlib import util
from typing import Any

import pytest

from tests.cli.commands import refused, schedsim


@pytest.fixture
def without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = util.find_spec

    def found(name: str, *rest: Any) -> Any:
        return None if name in ("torch", "safetensors") else find_spec(name, *rest)

    monkeypatch.setattr(util, "find_spec", found)


@pytest.mark.usefixtures("without_torch")
def test_the_message_says_how_to_get_it() -> None:
    message = refused("execute")
    assert "needs torch and safetensors" in message
    assert "pip install 'schedsim[executor]'" in message


@pytest.mark.usefixtures("without_torch")
def test_the_doctor_knows() -> None:
    lines = schedsim("doctor").stdout.splitlines()
    assert any(line.startswith("execution") and "pip install" in line for line in lines)


def test_help_needs_no_torch() -> None:
    ended = schedsim("execute", "--help")
    assert ended.exit_code == 0
    for text in ("Examples", "--weights", "--device", "--all-at-once", "--check"):
        assert text in ended.stdout
