"""Output tokens per second of the executor on a GPU, and where an iteration's time goes.

The workload of nano-vllm's `bench.py`: 256 requests at once, prompts and outputs uniform from 100
to 1024 tokens, drawn with Python's `random` from seed 0. Random weights.

    python tests/benchmarks/engine.py qwen3-0.6b llama-3-8b --runs 3 --out results.json
"""

import argparse
import gc
import json
import platform
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import triton

from schedsim.config import make_execution_settings, make_settings
from schedsim.executor.device import device_name
from schedsim.experiments.execution import DeviceModel, load_device_model, prepare_execution
from schedsim.traces.trace import Trace, TraceSource

PROMPT_TOKENS, OUTPUT_TOKENS = 142_827, 133_966
"""What the draw adds up to; a check that it is the same one."""

ANATOMY = (1, 32, 256)
PARTS = ("decision", "metadata", "launch", "wait", "completion")


def workload(requests: int = 256) -> Trace:
    """The requests, all at time 0."""
    dice = random.Random(0)
    prompts = []
    for _ in range(requests):
        length = dice.randint(100, 1024)
        for _ in range(length):
            dice.randint(0, 10000)  # the ids are the trace's own; the draw is repeated
        prompts.append(length)
    outputs = [dice.randint(100, 1024) for _ in range(requests)]
    if requests == 256:
        assert (sum(prompts), sum(outputs)) == (PROMPT_TOKENS, OUTPUT_TOKENS), "another draw"
    return trace_of(prompts, outputs)


def trace_of(prompts: list[int], outputs: list[int]) -> Trace:
    return Trace(
        np.zeros(len(prompts)),
        np.array(prompts, dtype=np.int32),
        np.array(outputs, dtype=np.int32),
        TraceSource("benchmark", "drawn", rows_read=len(prompts)),
    )


class Stopwatch:
    """Seconds spent in wrapped calls, one list a part; iteration by iteration."""

    def __init__(self) -> None:
        self.parts: dict[str, list[float]] = {part: [] for part in PARTS}

    def wrap(self, owner: Any, name: str, part: str) -> None:
        call: Callable[..., Any] = getattr(owner, name)
        record = self.parts[part].append

        def timed(*arguments: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            result = call(*arguments, **named)
            record(time.perf_counter() - begin)
            return result

        setattr(owner, name, timed)

    def median_us(self, part: str, which: np.ndarray) -> float:
        """The median of the iterations `which`, in microseconds."""
        values = np.array(self.parts[part])[: len(which)]
        return float(np.median(values[which[: len(values)]])) * 1e6


def run(device_model: DeviceModel, trace: Trace, **settings: Any) -> tuple[Any, Stopwatch]:
    """Run a trace; the step log and what the host's parts took."""
    gc.collect()  # the wrapped parts of the run before hold one another, and its KV cache
    chosen = make_settings(
        **{"policy": "vllm", "decision_lag": 1, "max_model_len": 4096, **settings}
    )
    backend = prepare_execution(trace, chosen, device_model).backend
    watch = Stopwatch()
    scheduler, runner, loop = backend._scheduler, backend._runner, backend._loop
    watch.wrap(scheduler, "schedule", "decision")
    watch.wrap(runner, "prepare", "metadata")
    watch.wrap(runner, "launch", "launch")
    watch.wrap(runner, "wait", "wait")
    watch.wrap(loop, "finish", "completion")
    assert backend.run(), "the run did not end"
    return backend.record().steps, watch


def figures(steps: Any, watch: Stopwatch, batch: int) -> dict[str, float]:
    """Medians over the iterations that only decoded `batch` requests."""
    decodes, prefills = steps.column("decode_requests"), steps.column("prefill_tokens")
    which = (decodes == batch) & (prefills == 0)
    which[:3] = False
    found: dict[str, float] = {"batch": batch, "iterations": int(which.sum())}
    if not which.any():
        return found
    ends, starts = steps.column("end"), steps.column("start")
    for name in ("gpu_s", "host_s", "gap_s"):
        found[name.replace("_s", "_us")] = float(np.nanmedian(steps.column(name)[which])) * 1e6
    found["iteration_us"] = float(np.median((ends - starts)[which])) * 1e6
    for part in PARTS:
        found[part + "_us"] = watch.median_us(part, which)
    found["host_path_us"] = sum(found[part + "_us"] for part in PARTS if part != "wait")
    found["context"] = float(np.median(steps.column("context_tokens")[which]))
    return found


def anatomy(model: DeviceModel, settings: dict[str, Any]) -> list[dict[str, float]]:
    rows = []
    for batch in ANATOMY:
        trace = trace_of([512] * batch, [160] * batch)
        steps, watch = run(model, trace, **settings)
        rows.append(figures(steps, watch, batch))
    return rows


def online(model: DeviceModel, settings: dict[str, Any]) -> dict[str, float]:
    """Medians over the iterations that mix decodes and chunks, 64 requests at a time."""
    dice = random.Random(1)
    lengths = [(dice.randint(100, 1024), dice.randint(30, 60)) for _ in range(320)]
    trace = trace_of([prompt for prompt, _ in lengths], [output for _, output in lengths])
    steps, watch = run(model, trace, concurrency=64, **{**settings, "token_budget": 2048})
    mixed = (steps.column("decode_requests") > 0) & (steps.column("prefill_tokens") > 0)
    found = {"mixed": int(mixed.sum()), "iterations": len(steps)}
    for name in ("gpu_s", "gap_s"):
        found[name.replace("_s", "_us")] = float(np.nanmedian(steps.column(name)[mixed])) * 1e6
    found["gaps_us"] = float(np.nansum(steps.column("gap_s"))) * 1e6
    found["total_us"] = float(steps.column("end")[-1]) * 1e6
    for part in PARTS:
        found[part + "_us"] = watch.median_us(part, mixed)
    return found


def measure(name: str, options: argparse.Namespace) -> dict[str, Any]:
    settings = {"model": name, "token_budget": options.token_budget}
    gc.collect()  # the KV cache of the model before
    execution = make_execution_settings(temperature=options.temperature)
    model = load_device_model(make_settings(**settings), execution)
    found: dict[str, Any] = {"model": name, "runs": []}
    for _ in range(options.runs):
        begin = time.perf_counter()
        steps, watch = run(model, workload(), **settings)
        seconds = float(steps.column("end")[-1])
        gpu = float(np.nansum(steps.column("gpu_s")))
        gaps = steps.column("gap_s")
        row = {
            "output_tok_s": OUTPUT_TOKENS / seconds,
            "seconds": seconds,
            "iterations": len(steps),
            "gpu_seconds": gpu,
            "gap_seconds": float(np.nansum(gaps)),
            "prefill_seconds": float(
                steps.column("gpu_s")[steps.column("prefill_tokens") > 0].sum()
            ),
            "with_start_seconds": time.perf_counter() - begin,
        }
        found["runs"].append(row)
        print(name, {key: round(value, 3) for key, value in row.items()}, flush=True)
    if options.runs:
        mixed = steps.column("prefill_tokens") > 0
        found["mixed"] = {part: watch.median_us(part, mixed) for part in PARTS}
        print(name, "with chunks, us:", {k: round(v) for k, v in found["mixed"].items()})
        rates = [row["output_tok_s"] for row in found["runs"]]
        found["median_tok_s"] = statistics.median(rates)
        print(f"{name}: {found['median_tok_s']:.0f} output tok/s, median of {len(rates)}")
    if options.anatomy:
        found["anatomy"] = anatomy(model, settings)
        for figure in found["anatomy"]:
            print(name, {key: round(value, 1) for key, value in figure.items()}, flush=True)
        found["online"] = online(model, settings)
        print(name, "online", {k: round(v, 1) for k, v in found["online"].items()}, flush=True)
    if options.profile:
        profile(model, settings)
    return found


def profile(model: DeviceModel, settings: dict[str, Any]) -> None:
    """What the GPU does in a short run of 256 requests, by kernel."""
    from torch.profiler import ProfilerActivity
    from torch.profiler import profile as profiled

    trace = trace_of([512] * 256, [24] * 256)
    with profiled(activities=[ProfilerActivity.CUDA]) as record:
        run(model, trace, **settings)
    print(
        record.key_averages().table(
            sort_by="cuda_time_total", row_limit=22, max_name_column_width=60
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--temperature", type=float, default=0.6)
    parser.add_argument("--token-budget", type=int, default=16384)
    parser.add_argument("--no-anatomy", dest="anatomy", action="store_false")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    device = torch.device("cuda")
    about = {
        "device": device_name(device),
        "host": device_name(torch.device("cpu")),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "python": platform.python_version(),
    }
    print(about)
    results = [measure(name, options) for name in options.models]
    if options.out is not None:
        options.out.write_text(json.dumps({"about": about, "results": results}, indent=1))


if __name__ == "__main__":
    main()
