"""Simulated output tokens and requests per CPU second.

Runs the recorded Vidur cases of ../shared/oracles and the Azure conversation trace, if they are
there, and the bundled sample, each a few times in one process, and prints the median:

    python tests/benchmarks/throughput.py
"""

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import pandas as pd

import schedsim
from schedsim.config import make_settings
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
            trace = vidur_case(path)
            found.append((name, trace, {**closed_form, "max_seqs": 128, **settings}))
    azure = SHARED / "traces" / "azure-2023" / "AzureLLMInferenceTrace_conv.csv.gz"
    if azure.exists():
        trace = scale_time(limit(schedsim.read_trace(azure), 5000), 2.0)
        for policy in ("vllm", "vllm-v0", "sarathi"):
            found.append((f"azure conv ×2, {policy}", trace, {"policy": policy, **closed_form}))
    found.append(("bundled sample, vllm", schedsim.sample_trace(), {"policy": "vllm"}))
    return found


def vidur_case(path: Path) -> schedsim.Trace:
    """The requests of a recorded case, whose file has an id column before Vidur's three."""
    frame = pd.read_csv(path).drop(columns="id")
    temporary = path.name
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / temporary
        frame.to_csv(target, index=False)
        return schedsim.read_trace(target)


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

        def simulate() -> None:
            prepare_run(replayed, settings).simulation.run()

        def simulate_and_measure() -> None:
            simulation = prepare_run(replayed, settings).simulation
            simulation.run()
            build_result(simulation.record())

        summary = schedsim.simulate(trace, **values).summary
        tokens, finished = summary["output_tokens"], summary["requests"]["finished"]
        alone, whole = measure(simulate), measure(simulate_and_measure)
        print(
            f"{name:28}{finished:>9}{tokens:>10}{alone:>8.3f}{tokens / alone:>14,.0f}"
            f"{finished / alone:>16,.0f}{tokens / whole:>14,.0f}"
        )


if __name__ == "__main__":
    main()
