"""A million requests: CPU seconds and peak memory from the command line to written results.

The `azure-conv` preset at 9 requests/s, about 80 % of what the engine can take, under `vllm` with
the closed-form step time of the Vidur cases, 30,000 blocks of 16, 256 seats, budget 2,048. Each
size is a process of its own, told to write its results, so start-up, reading and writing count; the
table is generated beforehand. Prints a row for each size, start-up (a run of one request) apart.
The preset's rate drifts, and a short trace may have a busy beginning only, when a request shares
its iterations with more others; `--arrivals poisson:9` gives all sizes the same load.

    python -m tests.benchmarks.million [--requests N …] [--arrivals SPEC]
"""

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

SCHEDSIM = Path(sys.executable).with_name("schedsim")
SETTINGS = (
    "--policy", "vllm", "--step-time", "linear:vidur-closed-form", "--blocks", "30000",
    "--max-seqs", "256", "--token-budget", "2048",
)  # fmt: skip


class Used(NamedTuple):
    """What a process took."""

    seconds: float
    gigabytes: float


def used_by(*arguments: str) -> Used:
    """CPU seconds, user and system, and the peak resident memory of a `schedsim` command."""
    process = subprocess.Popen([SCHEDSIM, *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"schedsim {' '.join(arguments)} ended with {process.returncode}")
    return Used(usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e9)


def run(requests: int, arrivals: str | None, folder: Path) -> Used:
    """A run of the first so many requests that the preset generates."""
    trace = folder / f"{requests}.parquet"
    rate = ("--rate", "9") if arrivals is None else ("--arrivals", arrivals)
    preset = ("--preset", "azure-conv", *rate, "--requests", str(requests))
    used_by("trace", "generate", *preset, "--out", str(trace))
    return used_by("run", str(trace), *SETTINGS, "--quiet", "--out", str(folder / str(requests)))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--requests", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--arrivals", help="as `schedsim trace generate` takes it")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="schedsim-") as name:
        folder = Path(name)
        start_up = run(1, options.arrivals, folder).seconds
        print(f"start-up: {start_up:.2f} CPU s")
        print(f"{'requests':>10}{'CPU s':>9}{'GB':>7}{'µs a request after start-up':>30}")
        for requests in options.requests:
            used = run(requests, options.arrivals, folder)
            each = (used.seconds - start_up) / requests * 1e6
            print(
                f"{requests:>10,}{used.seconds:>9.2f}{used.gigabytes:>7.2f}{each:>30.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
