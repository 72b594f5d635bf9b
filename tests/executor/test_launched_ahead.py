"""A runner that is given the next batch while one runs: the same decisions, and times in order."""

from pathlib import Path

import pandas as pd
import pytest

torch = pytest.importorskip("torch")

from schedsim.executor.runner import ModelRunner
from tests.executor.test_replayed_policies import (
    test_the_simulator_takes_the_decisions_of_the_engine as check_replay,
)


@pytest.mark.parametrize("name", ["vllm@0.33", "vllm-v0", "sarathi", "srtf", "vtc", "static"])
def test_the_simulator_takes_the_decisions_of_who_launches_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(ModelRunner, "launches_ahead", True)
    check_replay(tmp_path, name, 1)
    steps = pd.read_parquet(tmp_path / "real" / "steps.parquet")
    ends = steps["end"].str[0]
    begins_at_the_end = steps["start"][1:].to_numpy() == ends[:-1].to_numpy()
    assert begins_at_the_end.mean() > 0.5
    assert (steps["start"][1:].to_numpy() >= ends[:-1].to_numpy()).all()
    assert (steps["decided_at"] <= steps["start"]).all()
