"""Where a policy's simulation spends its CPU time: which functions run at each tick of the kernel.

The run of `policy_speed.py`, some times over. A sample costs little, so functions that are called
often look no more expensive than they are, unlike under cProfile; one that is in C is seen at the
next line of Python.

    python -m tests.benchmarks.sampled_profile POLICY
"""

import argparse
import signal
from collections import Counter
from types import FrameType

import schedsim
from schedsim.config import make_settings
from schedsim.experiments.setup import prepare_run, prepare_trace
from schedsim.traces.transforms import scale_time
from tests.benchmarks.policy_speed import CONVERSATIONS, SETTINGS

TICK = 0.001
"""Seconds; kernels tick less often."""


def main() -> None:
    """Print the share of each function, alone and with what it calls."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("policy")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--functions", type=int, default=40)
    options = parser.parse_args()
    alone: Counter[str] = Counter()
    called: Counter[str] = Counter()

    def sample(number: int, frame: FrameType | None) -> None:
        assert frame is not None, "sampled while nothing runs"
        alone[frame.f_code.co_qualname] += 1
        running = set()
        while frame is not None:
            running.add(frame.f_code.co_qualname)
            frame = frame.f_back
        called.update(running)

    settings = make_settings(**SETTINGS, policy=options.policy)
    trace = prepare_trace(scale_time(schedsim.read_trace(CONVERSATIONS), 4.0), settings)
    signal.signal(signal.SIGPROF, sample)
    for _ in range(options.repeats):
        backend = prepare_run(trace, settings).backend
        signal.setitimer(signal.ITIMER_PROF, TICK, TICK)
        backend.run()
        signal.setitimer(signal.ITIMER_PROF, 0.0)
    samples = sum(alone.values())
    print(f"{options.policy}: {backend.num_iterations:,} iterations, {samples:,} samples")
    print(f"{'all':>7}{'alone':>8}")
    for name, count in called.most_common(options.functions):
        print(f"{count / samples:>7.1%}{alone[name] / samples:>8.1%}  {name}")


if __name__ == "__main__":
    main()
