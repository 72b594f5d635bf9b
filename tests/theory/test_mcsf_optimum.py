"""`mcsf` against the hindsight optimum of small instances, by integer programming.

An iteration is a second and memory is in single tokens. Source of the setting: arXiv 2502.07115,
whose instances have 40 to 60 requests; up to 8 are solved here in seconds.
"""

import numpy as np
import pytest

from schedsim.experiments.reproductions.optimum import Instance, draw_instance, least_latency
from schedsim.policies import MCSF
from schedsim.predictors import Oracle
from tests.core.harness import Jobs, simulate

pytest.importorskip("ortools.sat.python.cp_model")


def total_latency(instance: Instance) -> int:
    """The sum of latencies under `mcsf` with exact lengths."""
    jobs = Jobs(
        instance.prompts,
        instance.outputs,
        instance.arrivals,
        limits=[99] * len(instance.outputs),
    )
    run = simulate(MCSF(), jobs, blocks=instance.memory, block_size=1, seats=99, predictor=Oracle())
    assert not any(request.preemptions for request in run.requests.values())
    return round(sum((r.finished or 0.0) - r.arrival for r in run.requests.values()))


def ratios(sizes: list[int], online: bool, seed: int, effort: float) -> list[float]:
    """Latency over the optimum of the instances that were solved."""
    rng = np.random.default_rng(seed)
    found = []
    for count in sizes:
        instance = draw_instance(rng, count, online)
        total = total_latency(instance)
        best = least_latency(instance, total, effort)
        if best is not None:
            assert best <= total, "the programme misses a schedule"
            found.append(total / best)
    return found


@pytest.mark.parametrize("online", [False, True])
def test_mcsf_is_near_the_optimum_of_tiny_instances(online: bool) -> None:
    found = ratios([4] * 6 + [5] * 2, online, 21, 20.0)
    assert len(found) >= 7
    assert np.mean(found) <= (1.10 if online else 1.03)


@pytest.mark.slow
@pytest.mark.parametrize("online", [False, True])
def test_mcsf_is_near_the_optimum(online: bool) -> None:
    found = ratios([5, 6, 7, 8] * 6, online, 22, 20.0)
    print(f"online={online}: {len(found)} solved, mean {np.mean(found):.4f}, max {max(found):.4f}")
    assert len(found) >= 12, "the solver proves too few"
    assert np.mean(found) <= (1.10 if online else 1.03)
