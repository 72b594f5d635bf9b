"""What runs say of their iterations: each one that took time is there."""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from schedsim.costs.features import UNPADDED, Padding
from schedsim.experiments.calibration import by_kind, error_figures
from schedsim.experiments.iterations import KINDS, Iterations, iterations_of, padding_of
from schedsim.results.stored_run import StoredRun, float_column, load_run
from tests.cli.commands import schedsim
from tests.experiments.hardware import Hardware, engine, run_design
from tests.experiments.iterations import Floats

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


def launched_ahead(
    run: StoredRun, gpu: Floats, exposed: Floats, host: Floats, gap_s: float
) -> StoredRun:
    """The run's batches on a device that is given each while it runs the one before.

    Batches take `host` until they are launched and `gpu` on the device, which has nothing to do for
    `gap_s` between two that wait in line. Copies hold a batch up for `exposed`.
    """
    ready, done = np.zeros(len(gpu)), np.zeros(len(gpu))
    decided, end, idle = np.zeros(len(gpu)), np.zeros(len(gpu)), np.full(len(gpu), np.nan)
    ready[0] = host[0]
    done[0] = ready[0] + gpu[0]
    seen = ready[0]
    for i in range(1, len(gpu)):
        decided[i] = seen
        ready[i] = decided[i] + host[i]
        begin = max(done[i - 1] + gap_s, ready[i]) + exposed[i]
        idle[i] = begin - done[i - 1]
        done[i] = begin + gpu[i]
        seen = end[i - 1] = max(ready[i], done[i - 1])
    end[-1] = done[-1]
    start = np.append(ready[0], end[:-1])
    ones = np.arange(len(gpu) + 1, dtype=np.int32)
    columns = {
        "decided_at": pa.array(decided),
        "start": pa.array(start),
        "end": pa.ListArray.from_arrays(pa.array(ones), pa.array(end)),
        "idle_looks": pa.ListArray.from_arrays(pa.array(0 * ones), pa.array([], pa.float64())),
        "host_s": pa.array(host),
        "gpu_s": pa.array(gpu),
        "gap_s": pa.array(idle),
    }
    steps = run.steps.select([name for name in run.steps.column_names if name not in columns])
    for name, column in columns.items():
        steps = steps.append_column(name, column)
    manifest = run.manifest | {"execution": {"device": "cuda:0"}}
    return dataclasses.replace(run, steps=steps, manifest=manifest)


GAP_S = 3e-6


@pytest.fixture(scope="module")
def ahead(swapping: Path) -> tuple[Iterations, Floats, Floats, Floats]:
    """Iterations launched ahead, what they took on the device, waited for copies and for the host;
    every fifth one is launched so late that the device waits."""
    run = load_run(swapping)
    swaps = float_column(run.steps, "swapped_blocks") > 0
    rng = np.random.default_rng(1)
    gpu, exposed = rng.uniform(5e-3, 9e-3, len(swaps)), np.where(swaps, 4e-3, 0.0)
    slow = np.arange(len(swaps)) % 5 == 1
    host = np.where(slow, 0.03, 5e-4)
    measured = launched_ahead(run, gpu, exposed, host, GAP_S)
    found = iterations_of(measured)
    assert len(found) == len(swaps), "every row ran something"
    on_cpu = dataclasses.replace(measured, manifest={"execution": {"device": "cpu"}})
    assert not iterations_of(on_cpu).timed.any(), "it had run a batch when its launch returned"
    return found, gpu, exposed, slow


def test_copies_that_hold_a_batch_up_are_its_own(
    ahead: tuple[Iterations, Floats, Floats, Floats],
) -> None:
    found, gpu, exposed, _ = ahead
    assert found.timed[1:].all()
    took = found.timed & (exposed > 0)
    assert took.sum() > 10
    np.testing.assert_allclose(found.device[took], (gpu + exposed)[took], atol=2 * GAP_S)
    others = found.timed & ~took
    np.testing.assert_allclose(found.device[others], gpu[others])
    assert np.isnan(found.gap[:-1][took[1:]]).all(), "no gap of the batch before"


def test_a_gap_in_which_the_device_waited_for_the_host_is_none(
    ahead: tuple[Iterations, Floats, Floats, Floats],
) -> None:
    """Although the host, which launches meanwhile, sees the end of the batch before only later."""
    found, gpu, exposed, slow = ahead
    known = ~np.isnan(found.gap[:-1])
    assert not known[slow[1:]].any()
    assert known.sum() > 0.5 * len(found)
    np.testing.assert_allclose(found.gap[:-1][known], GAP_S, rtol=1e-6)
    assert found.device[0] == pytest.approx(gpu[0]), "seen late, as the next one was launched late"
    assert found.idle[1:][slow[1:] & (exposed[1:] == 0)].min() > 0.01
