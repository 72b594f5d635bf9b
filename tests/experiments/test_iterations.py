"""What runs say of their iterations: each one that took time is there."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from schedsim.costs.features import UNPADDED, Padding
from schedsim.experiments.calibration import by_kind, error_figures
from schedsim.experiments.iterations import KINDS, Iterations, iterations_of, padding_of
from schedsim.results.stored_run import load_run
from tests.cli.commands import schedsim
from tests.experiments.hardware import Hardware, engine, run_design

POLICY = """
from schedsim import Policy, PreemptMode

class Swaps(Policy):
    def schedule(self, step):
        if step.iteration % 8 == 7 and step.running:
            step.preempt(step.running[-1], PreemptMode.SWAP)
        else:
            super().schedule(step)
"""


@pytest.fixture(scope="module")
def swapping(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose every eighth iteration swaps a request out and does nothing else."""
    folder = tmp_path_factory.mktemp("iterations")
    (folder / "policy.py").write_text(POLICY)
    done = schedsim(
        *("run", "--policy", f"{folder / 'policy.py'}:Swaps", "--limit", 20, "--all-at-once"),
        *("--memory", "paged,host_blocks=2000", "--token-scale", 0.2, "--decisions"),
        *("--out", folder / "out"),
    )
    assert done.exit_code == 0, done.stderr
    return folder / "out"


@pytest.fixture(scope="module")
def iterations(swapping: Path) -> Iterations:
    return iterations_of(load_run(swapping))


def test_iterations_that_only_copy_blocks_are_iterations(
    swapping: Path, iterations: Iterations
) -> None:
    steps = pd.read_parquet(swapping / "steps.parquet")
    nothing = (steps["prefill_tokens"] == 0) & (steps["decode_requests"] == 0)
    only_copies = nothing & (steps["swapped_blocks"] > 0)
    assert only_copies.any()
    assert (iterations.kind == KINDS.index("copies")).sum() == only_copies.sum()
    assert not (nothing & ~only_copies).any(), "then the iterations are the whole run"
    assert iterations.period.sum() == pytest.approx(steps["end"].str[0].iloc[-1])


def test_the_kinds_add_up(iterations: Iterations) -> None:
    kinds = by_kind(iterations.period, iterations)
    assert list(kinds) == ["prefill", "decode", "mixed", "copies"]
    assert sum(figures["iterations"] or 0 for figures in kinds.values()) == len(iterations)


def test_copies_alone_are_validated(swapping: Path, iterations: Iterations) -> None:
    ended = schedsim("validate", "--from", swapping, "--step-time", "roofline")
    assert ended.exit_code == 0, ended.stderr
    (row,) = [line for line in ended.stdout.splitlines() if line.startswith("copies")]
    count = int((iterations.kind == KINDS.index("copies")).sum())
    assert row.split("\u2502")[2].strip() == f"{count:,}"
    assert row.split("\u2502")[-1].strip(" +-") == "0.00 %"


def test_older_runs_had_room_for_as_many_chunks_in_every_size(tmp_path: Path) -> None:
    run = run_design(tmp_path / "run", Hardware(), engine(), limit=0.5)
    sizes = {"decodes": [1, 2], "mixed": [32, 64, 128]}
    run.manifest["execution"]["padding"] = {**sizes, "max_chunks": 16}
    assert padding_of(run) == Padding(**sizes, chunks=[16, 16, 16])
    run.manifest["execution"]["padding"] = {"decodes": [], "mixed": [], "max_chunks": 0}
    assert padding_of(run) == UNPADDED


def test_what_took_no_time_has_no_relative_error() -> None:
    figures = error_figures(np.zeros(3), np.zeros(3))
    assert figures["total"] is None
    assert figures["iterations"] == 3
