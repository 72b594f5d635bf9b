"""A policy on columns of arrivals and lengths, an affine step time, and the service it gives."""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from schedsim.backend.loop import Observer
from schedsim.costs.linear import LinearCost
from schedsim.load import Load
from schedsim.memory import PagedKVCache
from schedsim.output_limit import Outputs
from schedsim.policies import Policy
from schedsim.request import Request
from schedsim.results import Result, build_result
from schedsim.scheduler import Batch, Completion, Scheduler
from schedsim.simulator import Simulation
from schedsim.traces.trace import Trace, TraceSource

Floats = npt.NDArray[np.float64]


def make_trace(
    arrivals: Floats,
    prompts: npt.NDArray[np.int64],
    outputs: npt.NDArray[np.int64],
    tenants: npt.NDArray[np.int64] | None = None,
) -> Trace:
    return Trace(
        np.asarray(arrivals, dtype=np.float64),
        np.asarray(prompts, dtype=np.int32),
        np.asarray(outputs, dtype=np.int32),
        TraceSource("theory", "test", rows_read=len(arrivals)),
        tenant=tenants,
    )


def affine_step(base_s: float, token_s: float) -> LinearCost:
    """An iteration of k tokens takes `base_s` + k · `token_s`."""
    return LinearCost(base_s * 1e3, token_s * 1e3, token_s * 1e3, 0.0, 0.0)


def run_engine(
    policy: Policy,
    trace: Trace,
    cost: LinearCost,
    *,
    blocks: int = 1_000_000,
    block_size: int = 16,
    seats: int = 1000,
    budget: int = 2048,
    ttft_slo: float | None = None,
    tpot_slo: float | None = None,
    observer: Observer | None = None,
    until: Callable[[], bool] = lambda: False,
) -> Result:
    """Run to the end, or until `until` says so after an iteration."""
    outputs = Outputs(trace.output_tokens, trace.output_tokens)
    scheduler = Scheduler(
        policy,
        PagedKVCache(blocks, block_size),
        max_seqs=seats,
        token_budget=budget,
        max_model_len=100_000,
        estimator=cost.seconds,
    )
    load = Load(trace, outputs, ttft_slo=ttft_slo, tpot_slo=tpot_slo)
    simulation = Simulation(trace, scheduler, load, cost)

    class Stop:
        def scheduled(self, scheduler: Scheduler, batch: Batch, arrived: list[Request]) -> None:
            if until():
                simulation.stop()

        def completed(
            self, scheduler: Scheduler, completion: Completion, start: float, end: float
        ) -> None:
            pass

    simulation.observe(Stop(), *(() if observer is None else (observer,)))
    simulation.run()
    return build_result(simulation.record())


class Service:
    """Observes what two tenants were served, in VTC's prices, while both of them wait."""

    def __init__(self) -> None:
        self.served = [0, 0]
        self.times: list[float] = []
        self.differences: list[int] = []
        self.is_backlogged = True

    def scheduled(self, scheduler: Scheduler, batch: Batch, arrived: list[Request]) -> None:
        for request in batch.admitted:
            if not request.preemptions:
                self.served[request.tenant] += request.prompt_tokens
        if batch.iteration % 100 == 0:
            self.is_backlogged = len({request.tenant for request in scheduler.waiting}) == 2

    def completed(
        self, scheduler: Scheduler, completion: Completion, start: float, end: float
    ) -> None:
        for request in completion.sampled():
            self.served[request.tenant] += 2
        self.times.append(end)
        self.differences.append(self.served[0] - self.served[1])

    def gap(self, until: float) -> int:
        """The largest difference of service over any interval that ends by `until`."""
        upto = np.searchsorted(self.times, until, side="right")
        differences = np.array(self.differences[:upto])
        return int(differences.max() - differences.min())
