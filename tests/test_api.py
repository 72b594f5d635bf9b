"""`schedsim.simulate`: errors with their cause, manifests that say what ran."""

import json
import math
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

import schedsim
from schedsim.cli.app import app
from schedsim.costs import LinearCost
from schedsim.scheduler import BatchShape, Step
from schedsim.traces.trace import PromptBlocks, Trace, TraceSource


def short_trace(**columns: Any) -> Trace:
    return Trace(
        np.array([0.0, 1.0]),
        np.array([5, 5], dtype=np.int32),
        np.array([3, 3], dtype=np.int32),
        TraceSource("short", "test", rows_read=2),
        **columns,
    )


class BadCost:
    """A step-time model of the user's that says nonsense."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def seconds(self, shape: BatchShape) -> float:
        return self._seconds

    def describe(self) -> dict[str, Any]:
        return {"name": "bad"}


@pytest.mark.parametrize("seconds", [math.inf, math.nan, -1.0])
def test_a_step_time_that_is_no_time_is_told(seconds: float) -> None:
    with pytest.raises(schedsim.ConfigError, match=r"'bad' gives .* for iteration 0"):
        schedsim.simulate(short_trace(), "vllm", cost=BadCost(seconds))


def test_the_manifest_tells_the_step_time_and_limits_that_ran(tmp_path: Path) -> None:
    cost = LinearCost(1.0, 0.0, 0.0, 0.0, 0.0)
    schedsim.simulate(short_trace(), "vllm", cost=cost, out=tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["step_time"] == cost.describe()
    assert manifest["config"]["resolved"]["max_output"] == "context"
    assert "caller" in manifest["config"]["resolved"]["step_time"]


def test_shared_prefixes_that_are_not_used_are_noted(tmp_path: Path) -> None:
    blocks = PromptBlocks(4, np.array([0, 1, 2]), np.array([7, 7]))
    schedsim.simulate(short_trace(blocks=blocks), "vllm", out=tmp_path / "run")
    notes = json.loads((tmp_path / "run" / "manifest.json").read_text())["notes"]
    assert any("no prefix cache" in note for note in notes)


class Raises(schedsim.Policy):
    def schedule(self, step: Step) -> None:
        raise ZeroDivisionError("my mistake")


def test_a_policys_own_traceback_is_kept() -> None:
    with pytest.raises(schedsim.PolicyError, match="policy 'Raises' raised Zero") as caught:
        schedsim.simulate(short_trace(), Raises())
    cause = caught.value.__cause__
    assert isinstance(cause, ZeroDivisionError)
    assert traceback.extract_tb(cause.__traceback__)[-1].name == "schedule"


class RaisesWhenWatched(schedsim.Policy):
    """Its `group_key` fails outside of planning, where only an observer asks."""

    planning = False

    def schedule(self, step: Step) -> None:
        self.planning = True
        super().schedule(step)
        self.planning = False

    def group(self, request: schedsim.Request) -> int:
        return request.id

    def group_key(self, group: int) -> int:
        if not self.planning:
            raise KeyError(group)
        return group


def test_a_policy_that_fails_under_an_observer_is_told_in_one_message(tmp_path: Path) -> None:
    module = "from tests.test_api import RaisesWhenWatched\n"
    (tmp_path / "watched.py").write_text(module)
    trace = schedsim.generate("azure-conv", requests=20, rate=50.0, seed=1)
    schedsim.write_trace(trace, tmp_path / "t.parquet")
    arguments = ["run", str(tmp_path / "t.parquet"), "--decisions", "--max-seqs", "1"]
    arguments += ["--policy", f"{tmp_path / 'watched.py'}:RaisesWhenWatched"]
    done = CliRunner().invoke(app, [*arguments, "--out", str(tmp_path / "run")])
    assert done.exit_code == 2, done.output
    assert "'RaisesWhenWatched' raised KeyError" in done.stderr
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["complete"] is False
