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
from schedsim.output_limit import default_form, limit_outputs
from schedsim.policies import Policy
from schedsim.policies.loading import make_policy
from schedsim.predictors import make_predictor
from schedsim.results import SLO
from schedsim.scheduler import Scheduler
from schedsim.simulator import Simulation
from schedsim.traces.generators.arrivals import parse_arrivals, with_process
from schedsim.traces.token_scaling import scale_tokens
from schedsim.traces.trace import Trace
from schedsim.traces.transforms import limit, scale_time


def prepare_trace(trace: Trace, settings: RunSettings) -> Trace:
    """The trace as it will be replayed: limited, given arrivals, its rate and its lengths scaled.

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
        rng = np.random.default_rng(settings.seed)
        trace = with_process(trace, parse_arrivals(settings.arrivals), rng)
    elif not trace.has_arrivals and settings.concurrency is None:
        what = "sessions without start times" if trace.session is not None else "lengths alone"
        raise ConfigError(
            f"{trace.source.name} holds {what}: give arrival times with --arrivals "
            "(for example --arrivals poisson:rate=5) or a closed loop with --concurrency"
        )
    if settings.rate_scale != 1.0:
        trace = scale_time(trace, settings.rate_scale)
    return scale_tokens(trace, settings.token_scale)


@dataclass(frozen=True, slots=True)
class Sizes:
    """The engine's sizes after every default has been chosen; `notes` says how."""

    blocks: int
    max_model_len: int
    notes: tuple[str, ...]


def choose_sizes(settings: RunSettings, model: ModelSpec) -> Sizes:
    """Block count and context length of a run.

    Raises:
        ConfigError: an unknown GPU, or one that the model does not fit.
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
    step_time = settings.step_time if cost is None else "a step-time model of the caller's"
    if cost is None:
        gpu = load_gpu(settings.gpu)
        cost = make_step_cost(settings.step_time, model, gpu, settings.tensor_parallel)
    # A stream of its own: the arrivals' is that of the seed itself, as in `trace convert`.
    predictor_rng = np.random.default_rng(np.random.SeedSequence(settings.seed).spawn(1)[0])
    scheduler = Scheduler(
        policy if policy is not None else make_policy(settings.policy),
        make_kv_cache(settings.memory, sizes.blocks, settings.block_size),
        max_seqs=settings.max_seqs,
        token_budget=settings.token_budget,
        max_model_len=sizes.max_model_len,
        predictor=make_predictor(settings.predictor, predictor_rng),
        estimator=cost.seconds,
    )
    max_output = settings.max_output or default_form(trace)
    outputs = limit_outputs(trace, max_output, sizes.max_model_len)
    load = Load(trace, outputs, concurrency=settings.concurrency)
    notes = list(sizes.notes)
    num_cut = int(np.count_nonzero(outputs.tokens < trace.output_tokens))
    if num_cut:
        notes.append(f"{num_cut} outputs end at their output limit, before their true length")
    if trace.blocks is not None:
        notes.append(
            f"the prompts share prefixes, but {settings.memory!r} memory has no prefix cache: "
            "nothing is reused"
        )
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
        "max_output": max_output,
        "step_time": step_time,
    }
    return PreparedRun(simulation, cost, resolved, tuple(notes))
