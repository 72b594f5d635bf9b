"""From settings to objects: the trace as it will be replayed, and a simulation ready to run."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from schedsim.config import RunSettings
from schedsim.costs import KVCapacity, ModelSpec, kv_blocks, load_gpu, load_model, make_step_cost
from schedsim.costs.base import StepCost
from schedsim.errors import ConfigError
from schedsim.load import Load
from schedsim.memory import make_kv_cache
from schedsim.output_limit import limit_outputs
from schedsim.policies import Policy
from schedsim.policies.loading import make_policy
from schedsim.predictors import make_predictor
from schedsim.results import SLO
from schedsim.scheduler import Scheduler
from schedsim.simulator import Simulation
from schedsim.traces.generators.arrivals import parse_arrivals
from schedsim.traces.trace import Trace
from schedsim.traces.transforms import (
    limit,
    scale_time,
    session_count,
    with_arrivals,
    with_session_starts,
)


def prepare_trace(trace: Trace, settings: RunSettings) -> Trace:
    """The trace as it will be replayed: limited, given arrivals, scaled in time, in that order.

    Raises:
        ConfigError: the trace has no arrivals and the settings give none, or they give arrivals
            to a closed loop.
    """
    if settings.concurrency is not None:
        for option, is_given in (
            ("--arrivals", settings.arrivals is not None),
            ("--rate-scale", settings.rate_scale != 1.0),
        ):
            if is_given:
                raise ConfigError(
                    f"--concurrency {settings.concurrency} sends a request when another one ends, "
                    f"whatever its arrival time; leave {option} out"
                )
    if settings.limit is not None:
        trace = limit(trace, settings.limit)
    if settings.arrivals is not None:
        process = parse_arrivals(settings.arrivals)
        rng, _ = random_streams(settings.seed)
        if trace.session is not None and trace.parent is not None:
            trace = with_session_starts(trace, process.times(session_count(trace), rng))
        else:
            trace = with_arrivals(trace, process.times(len(trace), rng))
    elif not trace.has_arrivals and settings.concurrency is None:
        what = "sessions without start times" if trace.session is not None else "lengths alone"
        raise ConfigError(
            f"{trace.source.name} holds {what}: give arrival times with --arrivals "
            "(for example --arrivals poisson:rate=5) or a closed loop with --concurrency"
        )
    if settings.rate_scale != 1.0:
        trace = scale_time(trace, settings.rate_scale)
    return trace


def random_streams(seed: int) -> tuple[np.random.Generator, np.random.Generator]:
    """Independent generators for arrivals and for the predictor."""
    arrivals, predictor = np.random.SeedSequence(seed).spawn(2)
    return np.random.default_rng(arrivals), np.random.default_rng(predictor)


@dataclass(frozen=True, slots=True)
class Sizes:
    """The engine's sizes after every default has been chosen; `notes` says how."""

    blocks: int
    max_model_len: int
    notes: tuple[str, ...]


def choose_sizes(settings: RunSettings, model: ModelSpec) -> Sizes:
    """Block count and context length of a run.

    Raises:
        ConfigError: the model does not fit the GPU, or the context is longer than the model's.
    """
    notes = []
    blocks = settings.blocks
    if blocks is None:
        capacity: KVCapacity = kv_blocks(
            model, load_gpu(settings.gpu), settings.tensor_parallel, settings.block_size
        )
        blocks = capacity.blocks
        notes.append(capacity.explanation)
    slots = blocks * settings.block_size
    max_model_len = settings.max_model_len
    if max_model_len is None:
        max_model_len = min(model.max_model_len, slots)
        if slots < model.max_model_len:
            notes.append(
                f"context cut to the {slots} token slots of the cache "
                f"(the model's is {model.max_model_len})"
            )
    elif max_model_len > model.max_model_len:
        notes.append(
            f"max_model_len {max_model_len} is beyond the {model.max_model_len} positions that "
            f"{settings.model} was trained for"
        )
    return Sizes(blocks, max_model_len, tuple(notes))


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """A simulation with what its manifest has to tell: the sizes after all defaults, and notes."""

    simulation: Simulation
    cost: StepCost
    resolved: dict[str, int | str]
    notes: tuple[str, ...]

    @property
    def meta(self) -> dict[str, int | str]:
        """The first line of a decision record."""
        return self.resolved


def prepare_run(
    trace: Trace,
    settings: RunSettings,
    *,
    policy: Policy | None = None,
    cost: StepCost | None = None,
    check_every: int | None = None,
    progress: Callable[[float, int], None] | None = None,
) -> PreparedRun:
    """Build the simulation that `settings` describe on a prepared trace.

    `policy` and `cost` replace what the settings name.

    Raises:
        ConfigError: a name, a parameter or a size is wrong.
        PolicyError: a policy of the user's does not import.
    """
    model = load_model(settings.model)
    sizes = choose_sizes(settings, model)
    if cost is None:
        gpu = load_gpu(settings.gpu)
        cost = make_step_cost(settings.step_time, model, gpu, settings.tensor_parallel)
    _, predictor_rng = random_streams(settings.seed)
    scheduler = Scheduler(
        policy if policy is not None else make_policy(settings.policy),
        make_kv_cache(settings.memory, sizes.blocks, settings.block_size),
        max_seqs=settings.max_seqs,
        token_budget=settings.token_budget,
        max_model_len=sizes.max_model_len,
        predictor=make_predictor(settings.predictor, predictor_rng),
        estimator=cost.seconds,
    )
    outputs = limit_outputs(trace, settings.max_output, sizes.max_model_len)
    load = Load(trace, outputs, concurrency=settings.concurrency)
    notes = list(sizes.notes)
    num_cut = int(np.count_nonzero(outputs.tokens < trace.output_tokens))
    if num_cut:
        notes.append(f"{num_cut} outputs end at their output limit, before their true length")
    slo = None
    if settings.slo_ttft is not None or settings.slo_tpot is not None:
        slo = SLO(settings.slo_ttft, settings.slo_tpot)
    simulation = Simulation(
        trace, scheduler, load, cost, slo=slo, check_every=check_every, progress=progress
    )
    resolved: dict[str, int | str] = {
        "policy": repr(scheduler.policy),
        "num_blocks": sizes.blocks,
        "block_size": settings.block_size,
        "max_num_seqs": settings.max_seqs,
        "max_num_batched_tokens": scheduler.token_budget,
        "max_model_len": sizes.max_model_len,
    }
    return PreparedRun(simulation, cost, resolved, tuple(notes))
