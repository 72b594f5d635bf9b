"""Every shipped policy's speed: simulated output tokens per CPU second, beside a plain loop's.

The Azure conversation trace of ../shared/traces at four times its rate, the closed-form step time
of the Vidur cases, 30,000 blocks of 16, 256 seats, budget 2,048; lengths by the oracle for policies
that want them. CPU time of the simulation alone, the best of some runs in this process.

    python -m tests.benchmarks.policy_speed [--repeats N] [POLICY …]
"""

import argparse
import math
import time
from collections.abc import Callable
from pathlib import Path

import schedsim
from schedsim.config import make_settings
from schedsim.experiments.setup import prepare_run, prepare_trace
from schedsim.policies import POLICIES
from schedsim.results import build_result
from schedsim.traces.transforms import over_context, scale_time
from tests.benchmarks.plain_loop import plain_loop

SHARED = Path(__file__).resolve().parents[3] / "shared"
CONVERSATIONS = SHARED / "traces" / "azure-2023" / "AzureLLMInferenceTrace_conv.csv.gz"
SIZES = {"blocks": 30_000, "max_seqs": 256, "token_budget": 2048}
SETTINGS = {
    **SIZES,
    "step_time": "linear:vidur-closed-form",
    "predictor": "oracle",
    "slo_ttft": 2.0,
    "slo_tpot": 0.1,
}


def cpu_seconds(run: Callable[[], object]) -> float:
    """CPU seconds of a call."""
    started = time.process_time()
    run()
    return time.process_time() - started


def main() -> None:
    """Print a row for each policy, the plain loop first."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("policies", nargs="*", metavar="POLICY")
    options = parser.parse_args()
    trace = scale_time(schedsim.read_trace(CONVERSATIONS), 4.0)
    fits = over_context(trace, 8192)
    print(f"{'policy':24}{'tokens':>12}{'CPU s':>8}{'tokens/CPU s':>14}{'ratio':>8}")
    tokens, _ = plain_loop(fits, **SIZES)
    loops = [cpu_seconds(lambda: plain_loop(fits, **SIZES)) for _ in range(options.repeats)]
    plain = tokens / min(loops)
    print(f"{'(plain loop)':24}{tokens:>12,}{tokens / plain:>8.2f}{plain:>14,.0f}{1:>8.2f}")
    for name in options.policies or sorted(POLICIES):
        settings = make_settings(**SETTINGS, policy=name)
        replayed = prepare_trace(trace, settings)
        seconds = math.inf
        for _ in range(options.repeats):
            backend = prepare_run(replayed, settings).backend
            seconds = min(seconds, cpu_seconds(backend.run))
        tokens = build_result(backend.record()).summary["output_tokens"]
        speed = tokens / seconds
        print(
            f"{name:24}{tokens:>12,}{seconds:>8.2f}{speed:>14,.0f}{speed / plain:>8.2f}", flush=True
        )


if __name__ == "__main__":
    main()
