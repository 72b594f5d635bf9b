"""What the form of a fitted step time is worth: kernel tables that were measured, fitted and held.

The tables of ../shared/oracles (an RTX 4090, Llama-3.1-8B, vLLM's kernels) take the place of the
device: the designed batches are run under them, fitted, and the fit is held against the tables on
the batches of policies that it never saw, and in the latencies that come of it.

    python -m tests.benchmarks.calibrated_tables [--passes N]
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np

from schedsim.config import RunSettings
from schedsim.costs import FittedCost, StepCost, load_gpu, load_model, make_step_cost
from schedsim.costs.features import UNPADDED
from schedsim.costs.fitted import make_fitted
from schedsim.experiments.calibration import by_kind, calibrate, error_figures
from schedsim.experiments.iterations import iterations_of
from schedsim.experiments.runs import RunOptions, run_policy
from schedsim.experiments.setup import prepare_trace
from schedsim.results.stored_run import load_run
from schedsim.traces.sample import sample_trace
from tests.experiments.hardware import engine, run_design

TABLES = (
    Path(__file__).resolve().parents[3]
    / "shared/oracles/vllm_runs/RTX4090_Llama-3.1-8B/profile_bundle/tp1"
)
SIZES = {"memory": "paged", "max_seqs": 256, "token_budget": 2048, "max_model_len": 8192}
BLOCKS = 2587
POLICIES = ("vllm", "vllm-v0", "sarathi")


def show(label: str, figures: dict[str, float | int | None]) -> None:
    """A row of errors; nothing for no iterations."""
    if figures["iterations"]:
        median, p90, total = (
            100 * float(figures[name] or 0) for name in ("median", "p90", "total")
        )
        print(f"{label:42}{figures['iterations']:>7,}{median:>8.2f}{p90:>8.2f}{total:>+8.2f}")


def hold(cost: FittedCost, tables: StepCost, settings: RunSettings, folder: Path) -> None:
    """Run a policy under the tables; the fit on its batches, and instead of them."""
    trace = prepare_trace(sample_trace(), settings)
    true = run_policy(trace, settings, RunOptions(folder), cost=tables).result.summary
    told = run_policy(trace, settings, cost=cost).result.summary
    iterations = iterations_of(load_run(folder))
    host, device, gap = np.array([cost.parts(shape) for shape in iterations.shapes()]).T
    fitted = iterations.added(host, device, gap)
    show(settings.policy, error_figures(fitted, iterations.period))
    for kind, figures in by_kind(fitted, iterations).items():
        show(f"  {kind}", figures)
    for name in ("ttft_s", "tpot_s", "e2e_s"):
        error = told["latency"]["whole"][name]["mean"] / true["latency"]["whole"][name]["mean"] - 1
        print(f"  mean {name:60}{100 * error:>+8.2f}")


def main() -> None:
    """Print errors in per cent: median, p90, total."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--passes", type=int, default=2)
    passes = parser.parse_args().passes
    model, gpu = load_model("llama-3-8b"), load_gpu("rtx4090")
    tables = make_step_cost(f"tables:{TABLES}", model, gpu)
    print(f"{'error in per cent':51}{'median':>8}{'p90':>8}{'total':>8}")
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        designed = engine(**SIZES, blocks=8000, seed=3)
        run = run_design(folder / "design", tables, designed, passes, padding=UNPADDED)
        file = calibrate([run]).file
        show("held-out sizes of the design", file.residuals["cross_validated"])
        for region, figures in file.residuals["by_region"].items():
            show(f"  {region}", figures["held_out"])
        cost = make_fitted(file, "tables")
        for policy in POLICIES:
            settings = engine(**SIZES, blocks=BLOCKS, policy=policy, limit=400, rate_scale=3.0)
            hold(cost, tables, settings, folder / policy)


if __name__ == "__main__":
    main()
