"""`compare` finds what differs, and where nothing does it says so in 95 of 100 tries."""

import functools
from itertools import pairwise

import numpy as np
import pytest

import schedsim
from schedsim.config import make_settings
from schedsim.costs import LinearCost
from schedsim.errors import ConfigError, ResultError
from schedsim.experiments.arms import Arm, Measured
from schedsim.experiments.comparison import METRICS, Comparison, compare
from schedsim.traces.generators import Workload, parse_law
from schedsim.traces.generators.arrivals import Poisson

STEP_TIME = LinearCost(
    base_ms=10.0,
    prefill_token_ms=0.1,
    decode_request_ms=1.0,
    prefill_attention_ms=0.0,
    decode_context_ms=0.0,
)
SEATS = 8
LIGHT, BUSY, FLOOD = 40.0, 75.0, 90.0
"""Requests per second; the engine serves about 80."""


@functools.cache
def run(seed: int, rate: float, policy: str = "vllm", requests: int = 400) -> Measured:
    prompts, outputs = parse_law("fixed:64", "prompt"), parse_law("exponential:mean=4", "output")
    trace = Workload(Poisson(rate), prompts, outputs).generate(requests, seed, "generated")
    settings = {"predictor": "oracle", "max_seqs": SEATS, "blocks": 20_000, "seed": seed}
    result = schedsim.simulate(trace, policy, cost=STEP_TIME, **settings)
    return Measured.of_result(make_settings(policy=policy, **settings).model_dump(), result)


def arm(name: str, *runs: Measured) -> Arm:
    return Arm(name, runs)


def two_seeds(metrics: tuple[str, ...] = ()) -> list[Comparison]:
    """Each seed of 101 against the next one."""
    runs = [run(seed, LIGHT) for seed in range(101)]
    return [compare([arm("a", a), arm("b", b)], metrics=metrics) for a, b in pairwise(runs)]


def test_two_seeds_of_one_policy_do_not_differ_in_95_of_100_tries() -> None:
    tries = two_seeds(("e2e_s.mean",))
    same = sum(comparison.found("b", "e2e_s.mean") is False for comparison in tries)
    assert 88 <= same < 100  # 95 expected, 2.2 the standard deviation


def test_the_whole_table_is_held_to_the_level() -> None:
    tries = two_seeds()
    assert {len(comparison.metrics) for comparison in tries} == {7}
    assert sum(not any(t.found("b", metric) for metric in t.metrics) for t in tries) >= 88


def test_replications_of_one_policy_do_not_differ_in_95_of_100_tries() -> None:
    tries = [
        compare(
            [
                arm("a", *(run(seed, LIGHT) for seed in (i, i + 1))),
                arm("b", *(run(seed, LIGHT) for seed in (i + 2, i + 3))),
            ],
            metrics=["e2e_s.mean"],
        )
        for i in range(0, 100, 4)
    ]
    same = sum(comparison.found("b", "e2e_s.mean") is False for comparison in tries)
    assert same >= 20  # 23.75 expected, 1.1 the standard deviation


@pytest.mark.parametrize("seed", range(5))
def test_srtf_is_found_to_be_better_than_fcfs_on_one_trace(seed: int) -> None:
    fcfs, srtf = run(seed, FLOOD), run(seed, FLOOD, "srtf")
    comparison = compare([arm("fcfs", fcfs), arm("srtf", srtf)])
    difference = comparison.differences["srtf", "e2e_s.mean"]
    assert comparison.found("srtf", "e2e_s.mean")
    assert difference.paired
    assert difference.interval[1] < 0
    means = [measured.summary["latency"]["whole"]["e2e_s"]["mean"] for measured in (srtf, fcfs)]
    assert difference.estimate.value == pytest.approx(means[0] - means[1])


def test_srtf_is_found_to_be_better_than_fcfs_by_replications() -> None:
    seeds = range(5)
    comparison = compare(
        [
            arm("fcfs", *(run(seed, BUSY) for seed in seeds)),
            arm("srtf", *(run(seed, BUSY, "srtf") for seed in seeds)),
        ],
        metrics=["e2e_s.mean", "queue_s.mean"],
    )
    difference = comparison.differences["srtf", "e2e_s.mean"]
    assert comparison.method == "replications"
    assert difference.paired
    assert difference.interval[1] < 0
    assert difference.estimate.freedom == 4


def test_pairs_tell_more_than_runs_that_have_nothing_in_common() -> None:
    alone = compare([arm("fcfs", run(1, BUSY)), arm("srtf", run(2, BUSY, "srtf"))])
    paired = compare([arm("fcfs", run(1, BUSY)), arm("srtf", run(1, BUSY, "srtf"))])
    key = "srtf", "tpot_s.mean"
    assert not alone.differences[key].paired
    error = paired.differences[key].estimate.error
    assert error < alone.differences[key].estimate.error / 2


def test_a_run_is_as_good_as_itself() -> None:
    comparison = compare([arm("a", run(1, BUSY)), arm("b", run(1, BUSY))])
    assert not any(comparison.found("b", metric) for metric in comparison.metrics)
    assert all(d.interval == (0.0, 0.0) for d in comparison.differences.values())


def test_more_comparisons_make_wider_intervals() -> None:
    arms = [arm("fcfs", run(1, BUSY)), *(arm(f"{n}", run(1, BUSY, "srtf")) for n in range(4))]
    few, many = compare(arms[:2], metrics=["e2e_s.mean"]), compare(arms, metrics=["e2e_s.mean"])
    width = [float(np.diff(c.differences["0", "e2e_s.mean"].interval)[0]) for c in (few, many)]
    assert width[1] > width[0]


def test_the_baseline_can_be_named() -> None:
    arms = [arm("fcfs", run(1, BUSY)), arm("srtf", run(1, BUSY, "srtf"))]
    ahead, back = compare(arms), compare(arms, baseline="srtf")
    assert back.arms == ("srtf", "fcfs")
    there = ahead.differences["srtf", "e2e_s.mean"].estimate.value
    assert back.differences["fcfs", "e2e_s.mean"].estimate.value == pytest.approx(-there)


def test_seeds_that_only_one_has_are_left_out_and_told() -> None:
    comparison = compare(
        [
            arm("a", *(run(seed, LIGHT) for seed in (0, 1, 2))),
            arm("b", *(run(seed, LIGHT, "srtf") for seed in (1, 2, 3))),
        ]
    )
    assert comparison.differences["b", "e2e_s.mean"].estimate.freedom == 1
    assert comparison.notes == ("a and b are compared on their 2 common seeds",)


def test_a_quantile_of_too_few_requests_has_no_interval() -> None:
    comparison = compare([arm("a", run(1, LIGHT)), arm("b", run(2, LIGHT))], metrics=["e2e_s.p99"])
    samples = comparison.samples["a", "e2e_s.p99"]
    assert samples.value == run(1, LIGHT).summary["latency"]["whole"]["e2e_s"]["p99"]
    assert samples.values is None
    assert comparison.found("b", "e2e_s.p99") is None


def test_an_unstable_run_is_told() -> None:
    (note,) = compare([arm("a", run(1, 100.0))]).notes
    assert note.startswith("a is unstable")


def test_every_metric_stands_in_a_summary() -> None:
    comparison = compare([arm("a", run(1, LIGHT), run(2, LIGHT))], metrics=list(METRICS))
    missing = set(METRICS) - set(comparison.metrics)
    assert missing == {"goodput"}
    assert comparison.notes == ("no run has goodput",)


def test_what_cannot_be_compared_is_refused() -> None:
    one, two = arm("one", run(1, LIGHT)), arm("two", run(1, LIGHT), run(2, LIGHT))
    with pytest.raises(ConfigError, match="unknown metric 'e2e'"):
        compare([one], metrics=["e2e"])
    with pytest.raises(ConfigError, match="unknown baseline 'one'"):
        compare([two], baseline="one")
    with pytest.raises(ConfigError, match=r"--level 1.0 must be above 0 and below 1"):
        compare([one], level=1.0)
    with pytest.raises(ResultError, match="two has 2 replications and one is one run"):
        compare([one, two])
