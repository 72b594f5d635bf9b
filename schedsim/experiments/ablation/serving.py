"""One run of a cell, and what it was worth."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from schedsim.config import RunSettings
from schedsim.costs import StepCost
from schedsim.experiments.in_line import InLine, use_in_line
from schedsim.experiments.runs import Outcome, run_policy
from schedsim.experiments.setup import prepare_trace
from schedsim.traces.trace import Trace


@dataclass(frozen=True, slots=True)
class Served:
    """What a run of a burst brought; `use` is None where nobody ever waited.

    `moved_tokens` are slots copied within the device, by moves of who outgrew a prediction and by
    compaction. `notes` are those of the run.
    """

    output_tokens_per_s: float
    requests_per_s: float
    makespan_s: float
    finished: int
    not_served: int
    at_once: float
    preemptions: int
    recomputed_tokens: int
    moved_tokens: int
    use: InLine | None
    notes: tuple[str, ...]

    @classmethod
    def of(cls, outcome: Outcome, block_size: int) -> "Served":
        """From a run.

        Raises:
            SchedsimError, KeyboardInterrupt: it did not come to its end.
        """
        result = outcome.whole()
        summary = result.summary
        requests, rate = summary["requests"], summary["throughput"]["whole"]
        return cls(
            output_tokens_per_s=rate["output_tokens_per_s"] or 0.0,
            requests_per_s=rate["requests_per_s"] or 0.0,
            makespan_s=summary["makespan_s"] or 0.0,
            finished=requests["finished"],
            not_served=requests["kept"] - requests["finished"],
            at_once=summary["batch_size"]["requests_time_weighted"] or 0.0,
            preemptions=summary["preemptions"],
            recomputed_tokens=summary["recomputed_tokens"],
            moved_tokens=summary["copied_blocks"] * block_size,
            use=use_in_line(result, block_size),
            notes=outcome.notes,
        )


def serve(trace: Trace, settings: RunSettings, cost: StepCost | None = None) -> Served:
    """Simulate a burst; `cost` replaces the step time of the settings.

    Raises:
        ConfigError: a setting is wrong.
        PolicyError: the run broke off.
    """
    outcome = run_policy(prepare_trace(trace, settings), settings, cost=cost)
    return Served.of(outcome, settings.block_size)


def served_rates(runs: Sequence[Served]) -> list[float]:
    """Output tokens a second of each run."""
    return [run.output_tokens_per_s for run in runs]


def mean_log_rate(runs: Sequence[Served]) -> float:
    """By which candidates are compared; -inf if one of them served nothing."""
    rates = served_rates(runs)
    return sum(map(math.log, rates)) / len(rates) if all(rates) else -math.inf
