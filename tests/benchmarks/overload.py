"""Every shipped policy through an overload of 40,000 requests: does it end, and at what CPU time?

The Azure conversation trace of ../shared/traces, repeated and eight times as fast as it came, which
is about twice what the engine can take. Its memory is short; tenants, priorities and targets are
made up as in the golden table.
Prints a row for each policy: CPU microseconds a request, relative to `vllm`, and what it did.

    python tests/benchmarks/overload.py [--requests N] [POLICY …]
"""

import argparse
import time
from pathlib import Path

import numpy as np

import schedsim
from schedsim.config import make_settings
from schedsim.experiments.setup import prepare_run, prepare_trace
from schedsim.policies import POLICIES
from schedsim.results import build_result
from schedsim.traces.trace import Trace, TraceSource

SHARED = Path(__file__).resolve().parents[3] / "shared"
REQUESTS = 40_000
SPEED = 8.0
SETTINGS = {
    "blocks": 16_384,
    "max_model_len": 16_384,
    "max_output": "factor:2",
    "predictor": "oracle",
    "slo_ttft": 2.0,
    "slo_tpot": 0.1,
}


def overload(requests: int) -> Trace:
    """The trace as often as it takes, one copy after the other."""
    path = SHARED / "traces" / "azure-2023" / "AzureLLMInferenceTrace_conv.csv.gz"
    trace = schedsim.read_trace(path)
    number = np.arange(requests)
    copy, row = np.divmod(number, len(trace))
    span = float(trace.arrival[-1]) + 1.0
    return Trace(
        (trace.arrival[row] + copy * span) / SPEED,
        trace.prompt_tokens[row],
        trace.output_tokens[row],
        TraceSource("overload", "benchmark", rows_read=requests),
        tenant=np.searchsorted([4, 7, 9, 10], number * 7 % 10, side="right").astype(np.int64),
        priority=(number % 3).astype(np.int64),
    )


def main() -> None:
    """Print a row for each policy, `vllm` first."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, default=REQUESTS)
    parser.add_argument("policies", nargs="*", metavar="POLICY")
    options = parser.parse_args()
    names = [name for name in options.policies or sorted(POLICIES) if name != "vllm"]
    trace = overload(options.requests)
    print(
        f"{'policy':24}{'CPU µs/request':>16}{'× vllm':>8}{'finished':>10}{'makespan s':>12}"
        f"{'iterations':>12}{'preemptions':>13}",
        flush=True,
    )
    base = None
    for name in ["vllm", *names]:
        settings = make_settings(policy=name, **SETTINGS)
        simulation = prepare_run(prepare_trace(trace, settings), settings).backend
        started = time.process_time()
        simulation.run()
        seconds = time.process_time() - started
        base = base or seconds
        result = build_result(simulation.record())
        summary = result.summary
        print(
            f"{name:24}{seconds / options.requests * 1e6:>16,.1f}{seconds / base:>8.2f}"
            f"{summary['requests']['finished']:>10,}{summary['makespan_s']:>12,.0f}"
            f"{len(result.steps):>12,}{summary['preemptions']:>13,}",
            flush=True,
        )


if __name__ == "__main__":
    main()
