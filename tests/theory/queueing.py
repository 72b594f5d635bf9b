"""A queue in the engine: jobs of whole tokens with one-token prompts, and how long they stayed."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from schedsim.costs.linear import LinearCost
from schedsim.load import Load
from schedsim.memory import PagedKVCache
from schedsim.output_limit import Outputs
from schedsim.policies import VLLM, Policy
from schedsim.predictors import Predictor
from schedsim.results import Result, build_result
from schedsim.scheduler import Scheduler
from schedsim.simulator import Simulation
from schedsim.traces.trace import Trace, TraceSource


def run_queue(
    arrivals: npt.NDArray[np.float64],
    tokens: Sequence[int] | npt.NDArray[np.int64],
    cost: LinearCost,
    seats: int,
    policy: Policy | None = None,
    predictor: Predictor | None = None,
) -> Result:
    """Run jobs of `tokens` output tokens through `policy` (`vllm`) with ample memory."""
    output = np.asarray(tokens, dtype=np.int32)
    count = len(output)
    trace = Trace(
        np.asarray(arrivals, dtype=np.float64),
        np.ones(count, dtype=np.int32),
        output,
        TraceSource("queue", "test", rows_read=count),
    )
    blocks = int(np.sum(output // 16 + 1))  # room for all of them at once
    scheduler = Scheduler(
        policy or VLLM(),
        PagedKVCache(blocks, 16, host_blocks=blocks),
        max_seqs=seats,
        token_budget=1_000_000,
        max_model_len=1_000_000,
        predictor=predictor,
        estimator=cost.seconds,
    )
    simulation = Simulation(trace, scheduler, Load(trace, Outputs(output, output)), cost)
    simulation.run()
    return build_result(simulation.record())


def constant_step(seconds: float) -> LinearCost:
    """Every iteration takes the same time."""
    return LinearCost(seconds * 1000.0, 0.0, 0.0, 0.0, 0.0)


def shared_step(seconds: float) -> LinearCost:
    """An iteration takes `seconds` for each request that it serves: processor sharing."""
    return LinearCost(0.0, seconds * 1000.0, seconds * 1000.0, 0.0, 0.0)


def sojourns(result: Result) -> npt.NDArray[np.float64]:
    """Arrival to last token of every request, in trace order."""
    return result.requests["e2e_s"].to_numpy(dtype=np.float64)
