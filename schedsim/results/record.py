"""`RunRecord`: everything a backend hands over when a run is done."""

from dataclasses import dataclass

from schedsim.results.request_log import ReleasedRequest, RequestLog
from schedsim.results.step_log import StepLog
from schedsim.scheduler.token_log import TokenLog
from schedsim.traces.trace import Trace


@dataclass(frozen=True, slots=True)
class SLO:
    """Latency targets in seconds for every request; None is no target.

    A request's own target in the trace (`ttft_slo`, `tpot_slo`) goes before these.
    """

    ttft: float | None = None
    tpot: float | None = None


@dataclass(slots=True)
class RunRecord:
    """A finished or interrupted run, as a backend saw it.

    A request's id is its row in `trace`; requests that were never released are missing and count
    as unfinished. `tokens` is the log after the scheduler closed its open spans. `end_time` is when
    the run ended, in simulated or measured seconds; `interrupted` says why it ended early.
    `num_unswapped` counts the preemptions that were to swap to the host tier, which has
    `host_blocks`, and could not.
    """

    trace: Trace
    requests: RequestLog
    steps: StepLog
    tokens: TokenLog
    total_blocks: int
    block_size: int
    end_time: float
    slo: SLO | None = None
    interrupted: str | None = None
    replica: int = 0
    host_blocks: int = 0
    num_unswapped: int = 0

    def released_requests(self) -> list[ReleasedRequest]:
        """The requests that the run saw, by id."""
        return sorted(self.requests)
