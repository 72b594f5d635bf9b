"""Simulated output tokens and requests per CPU second.

Runs the recorded Vidur cases of ../shared/oracles and the Azure conversation trace, if they are
there, and the bundled sample, each a few times in one process, and prints the median:

    python tests/benchmarks/throughput.py
"""

import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import schedsim
from schedsim.config import RunSettings, make_settings
from schedsim.experiments.setup import prepare_run, prepare_trace
from schedsim.results import build_result
from schedsim.traces.transforms import limit, scale_time

SHARED = Path(__file__).resolve().parents[3] / "shared"
REPEATS = 5

Case = tuple[str, schedsim.Trace, dict[str, object]]


def cases() -> list[Case]:
    """Name, trace and settings of every case whose files are there."""
    closed_form = {"step_time": "linear:vidur-closed-form"}
    found: list[Case] = []
    for name, settings in {
        "cf_vllm_light": {
            "policy": "vllm-v0,padded_budget=true,running_order=arrival",
            "blocks": 4096,
            "token_budget": 4096,
        },
        "cf_sarathi_pressure": {"policy": "sarathi,chunk_size=512", "blocks": 1024},
    }.items():
        path = SHARED / "oracles" / "vidur" / name / "requests.csv"
        if path.exists():
            trace = schedsim.read_trace(path)
            found.append((name, trace, {**closed_form, "max_seqs": 128, **settings}))
    azure = SHARED / "traces" / "azure-2023" / "AzureLLMInferenceTrace_conv.csv.gz"
    if azure.exists():
        trace = scale_time(limit(schedsim.read_trace(azure), 5000), 2.0)
        found += [
            (f"azure conv ×2, {policy}", trace, {"policy": policy, **closed_form})
            for policy in ("vllm", "vllm-v0", "sarathi")
        ]
    found.append(("bundled sample, vllm", schedsim.sample_trace(), {"policy": "vllm"}))
    return found


def simulate(trace: schedsim.Trace, settings: RunSettings) -> None:
    """The simulation alone."""
    prepare_run(trace, settings).backend.run()


def simulate_and_measure(trace: schedsim.Trace, settings: RunSettings) -> None:
    """The simulation, its tables and its summary."""
    simulation = prepare_run(trace, settings).backend
    simulation.run()
    build_result(simulation.record())


def measure(run: Callable[[], None]) -> float:
    """Median CPU seconds of a call."""
    seconds = []
    for _ in range(REPEATS):
        started = time.process_time()
        run()
        seconds.append(time.process_time() - started)
    return statistics.median(seconds)


def main() -> None:
    """Print a row for each case: the simulation alone, and with metrics and tables."""
    print(
        f"{'case':28}{'requests':>9}{'tokens':>10}{'CPU s':>8}{'tokens/CPU s':>14}"
        f"{'requests/CPU s':>16}{'with metrics':>14}"
    )
    for name, trace, values in cases():
        settings = make_settings(**values)
        replayed = prepare_trace(trace, settings)

        summary = schedsim.simulate(trace, **values).summary
        tokens, finished = summary["output_tokens"], summary["requests"]["finished"]
        alone = measure(partial(simulate, replayed, settings))
        whole = measure(partial(simulate_and_measure, replayed, settings))
        print(
            f"{name:28}{finished:>9}{tokens:>10}{alone:>8.3f}{tokens / alone:>14,.0f}"
            f"{finished / alone:>16,.0f}{tokens / whole:>14,.0f}"
        )


if __name__ == "__main__":
    main()
