"""`compare`: what runs differ in, with intervals that know that requests in a queue are alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from schedsim.errors import ConfigError, ResultError
from schedsim.experiments.arms import Arm
from schedsim.experiments.intervals import Corrected, Estimate, difference_of, holm
from schedsim.experiments.samples import Batches, Replications, Samples, Source
from schedsim.specs import unknown_name

LATENCIES = ("ttft_s", "tpot_s", "e2e_s", "queue_s")
STATISTICS = ("mean", "p50", "p90", "p95", "p99")

METRICS: dict[str, tuple[str, ...]] = {
    **{f"{name}.{part}": ("latency", name, part) for name in LATENCIES for part in STATISTICS},
    **{f"itl_s.{part}": ("latency", "itl_s", part) for part in STATISTICS},
    "requests_per_s": ("throughput", "requests_per_s"),
    "output_tokens_per_s": ("throughput", "output_tokens_per_s"),
    "goodput": ("goodput", "share"),
}
"""What can be compared: the part of the summary, and the path in its window."""

DEFAULT_METRICS = (
    *(f"{name}.{part}" for name in ("ttft_s", "tpot_s", "e2e_s") for part in ("mean", "p99")),
    "output_tokens_per_s",
    "goodput",
)


@dataclass(frozen=True, slots=True)
class Difference:
    """A metric of an arm less that of the baseline; `corrected` for all the table's comparisons."""

    estimate: Estimate
    corrected: Corrected
    paired: bool

    @property
    def interval(self) -> tuple[float, float]:
        """The values that the difference may have; without 0 exactly if there is one."""
        half = self.estimate.half_width(self.corrected.level)
        return self.estimate.value - half, self.estimate.value + half


@dataclass(frozen=True, slots=True)
class Comparison:
    """Arms side by side; the first is the baseline. Figures by arm and metric, absent for none."""

    arms: tuple[str, ...]
    metrics: tuple[str, ...]
    method: str
    window: str
    level: float
    samples: dict[tuple[str, str], Samples]
    differences: dict[tuple[str, str], Difference]
    notes: tuple[str, ...]

    def found(self, arm: str, metric: str) -> bool | None:
        """Whether `arm` differs from the baseline; None where nobody can say."""
        difference = self.differences.get((arm, metric))
        return None if difference is None else difference.corrected.p < self.level

    def as_json(self) -> dict[str, Any]:
        """Everything, for machines."""
        return {
            "baseline": self.arms[0],
            "method": self.method,
            "window": self.window,
            "level": self.level,
            "notes": list(self.notes),
            "metrics": {
                metric: {arm: self._cell(arm, metric) for arm in self.arms}
                for metric in self.metrics
            },
        }

    def _cell(self, arm: str, metric: str) -> dict[str, Any] | None:
        samples = self.samples.get((arm, metric))
        if samples is None:
            return None
        own = None if samples.values is None else samples.values.estimate
        cell: dict[str, Any] = {
            "value": samples.value,
            "interval_half": None if own is None else own.half_width(self.level),
            "samples": samples.size,
            "effective_samples": samples.effective_size,
        }
        difference = self.differences.get((arm, metric))
        if difference is not None:
            cell["difference"] = {
                "value": difference.estimate.value,
                "interval": list(difference.interval),
                "p": difference.estimate.p,
                "corrected_p": difference.corrected.p,
                "paired": difference.paired,
                "differs": self.found(arm, metric),
            }
        return cell


def compare(
    arms: Sequence[Arm],
    *,
    metrics: Sequence[str] = (),
    baseline: str | None = None,
    level: float = 0.05,
    window: str = "whole",
) -> Comparison:
    """Compare every arm with the baseline (the first one, unless named), metric by metric.

    Arms of several runs are compared by replication, paired by seed; arms of one run each by the
    means of batches of requests, paired where both served the same load. With chance 1 - `level`
    no difference of the whole table is there by luck. `window` is `steady` or `whole`.

    Raises:
        ConfigError: an unknown metric or baseline, or a level outside (0, 1).
        ResultError: some arms are replicated and others are not.
    """
    if not 0 < level < 1:
        raise ConfigError(f"--level {level} must be above 0 and below 1")
    for metric in metrics:
        if metric not in METRICS:
            raise unknown_name("metric", metric, METRICS)
    arms = _baseline_first(arms, baseline)
    chosen = tuple(dict.fromkeys(metrics or DEFAULT_METRICS))
    replicated = _is_replicated(arms)
    source: Source = Replications(window) if replicated else Batches(window, arms)
    samples: dict[tuple[str, str], Samples] = {}
    for metric in chosen:
        for arm in arms:
            taken = source.samples(arm, METRICS[metric])
            if taken is not None:
                samples[arm.name, metric] = taken
    told = tuple(m for m in chosen if any((arm.name, m) in samples for arm in arms))
    missing = [metric for metric in metrics if metric not in told]
    differences = _differences(arms, told, source, level)
    return Comparison(
        arms=tuple(arm.name for arm in arms),
        metrics=told,
        method="replications" if replicated else "batches",
        window=window,
        level=level,
        samples=samples,
        differences=differences,
        notes=(
            *([f"no run has {', '.join(missing)}"] if missing else []),
            *source.notes(),
            *_on_stability(arms),
        ),
    )


def _baseline_first(arms: Sequence[Arm], baseline: str | None) -> list[Arm]:
    if baseline is None:
        return list(arms)
    names = [arm.name for arm in arms]
    if baseline not in names:
        raise unknown_name("baseline", baseline, names)
    first = names.index(baseline)
    return [arms[first], *arms[:first], *arms[first + 1 :]]


def _is_replicated(arms: Sequence[Arm]) -> bool:
    counts = {arm.name: len(arm.runs) for arm in arms}
    single = [name for name, count in counts.items() if count == 1]
    if single and len(single) < len(arms):
        several = next(name for name, count in counts.items() if count > 1)
        raise ResultError(
            f"{several} has {counts[several]} replications and {single[0]} is one run; give "
            "replications of all, or name one run of each"
        )
    return not single


def _differences(
    arms: Sequence[Arm], metrics: Sequence[str], source: Source, level: float
) -> dict[tuple[str, str], Difference]:
    found: dict[tuple[str, str], tuple[Estimate, bool]] = {}
    for metric in metrics:
        for arm in arms[1:]:
            pair = source.pair(arms[0], arm, METRICS[metric])
            if pair is not None:
                found[arm.name, metric] = difference_of(*pair), pair.paired
    corrected = holm([estimate.p for estimate, _ in found.values()], level)
    return {
        key: Difference(estimate, holms, paired)
        for (key, (estimate, paired)), holms in zip(found.items(), corrected, strict=True)
    }


def _on_stability(arms: Sequence[Arm]) -> list[str]:
    return [
        f"{arm.name} is unstable: its latencies grow with the length of the run, so that they tell "
        "of this length alone; compare throughput, or lower the rate"
        for arm in arms
        if any(run.summary["stable"] is False for run in arm.runs)
    ]
