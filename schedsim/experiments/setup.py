"""From settings to objects: the trace as it will be replayed, and a simulation ready to run."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from schedsim.backend import Backend
from schedsim.config import MAX_BLOCKS, RunSettings
from schedsim.content import Content, shares_prefixes
from schedsim.costs import (
    GPUSpec,
    KVCapacity,
    ModelSpec,
    RecordedTimes,
    StepCost,
    kv_blocks,
    load_gpu,
    load_model,
    make_step_cost,
    make_step_time,
)
from schedsim.costs.noise import StepNoise
from schedsim.errors import ConfigError
from schedsim.experiments.notes import notes_on_time
from schedsim.experiments.step_time import (
    ROOFLINE,
    choose_step_time,
    has_calibration,
    make_noise,
)
from schedsim.load import Load
from schedsim.memory import make_kv_cache, make_manager
from schedsim.output_limit import default_form, limit_outputs
from schedsim.policies import Policy
from schedsim.policies.loading import make_policy
from schedsim.predictors import Predictor, make_predictor
from schedsim.results import SLO, build_manifest
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


class Sizes(NamedTuple):
    """The engine's sizes after every default has been chosen; `notes` says how.

    `blocks` are of `block_size` tokens, which the memory manager may want otherwise than the
    settings.
    """

    blocks: int
    block_size: int
    max_model_len: int
    notes: tuple[str, ...]


def with_policy_defaults(settings: RunSettings, policy: Policy) -> RunSettings:
    """The settings with what the policy's own engine has where they name nothing."""
    lag = settings.decision_lag
    return settings.model_copy(
        update={
            "memory": policy.default_memory if settings.memory is None else settings.memory,
            "decision_lag": policy.default_decision_lag if lag is None else lag,
        }
    )


def with_step_time(settings: RunSettings) -> RunSettings:
    """The settings with the step time that a simulation takes where they name none.

    Raises:
        ConfigError: as `prepare_run`.
        PolicyError: a policy of the user's does not import.
    """
    if settings.step_time is not None:
        return settings
    spec = ROOFLINE
    if has_calibration(settings.gpu, settings.model):  # of which kernels, the policy's memory says
        filled = with_policy_defaults(settings, make_policy(settings.policy))
        spec, _ = choose_step_time(filled, own_block_size(filled, load_model(settings.model)))
    return settings.model_copy(update={"step_time": spec})


def own_block_size(settings: RunSettings, model: ModelSpec) -> int:
    """Tokens in a block of the memory manager that the settings name.

    Raises:
        ConfigError: an unknown name or parameter, or a model that the manager cannot serve.
    """
    kv_bytes = model.kv_bytes_per_token_on_gpu(settings.tensor_parallel)
    assert settings.memory is not None, "the policy's memory manager is not filled in"
    manager = make_manager(settings.memory)
    return manager.own_block_size(settings.block_size, kv_bytes // (2 * model.layers))


def choose_sizes(settings: RunSettings, model: ModelSpec, gpu: GPUSpec) -> Sizes:
    """Block count and context length of a simulated run.

    Raises:
        ConfigError: the model does not fit on the GPU.
    """
    notes = []
    blocks = settings.blocks
    if blocks is None:
        size = own_block_size(settings, model)
        capacity: KVCapacity = kv_blocks(model, gpu, settings.tensor_parallel, size)
        blocks = capacity.blocks
        notes.append(capacity.explanation)
    sizes = fit_context(settings, model, blocks)
    return sizes._replace(notes=(*notes, *sizes.notes))


def fit_context(settings: RunSettings, model: ModelSpec, blocks: int) -> Sizes:
    """The context length of an engine with `blocks` KV blocks.

    Blocks of the settings are as many tokens in blocks of the memory manager's own; others are
    of that kind already.

    Raises:
        ConfigError: they do not make one of the manager's own, or too many.
    """
    notes = []
    size = own_block_size(settings, model)
    if settings.blocks is not None and size != settings.block_size:
        slots = settings.blocks * settings.block_size
        blocks = slots // size
        if not 1 <= blocks <= MAX_BLOCKS:
            raise ConfigError(
                f"--blocks {settings.blocks} of {settings.block_size} tokens are {blocks} blocks "
                f"of {size} tokens, which {settings.memory!r} memory has; from 1 to {MAX_BLOCKS} "
                "will do: change --blocks or --block-size"
            )
        notes.append(
            f"{settings.memory!r} memory has blocks of {size} tokens, not of --block-size "
            f"{settings.block_size}: {blocks} of them for the {slots} tokens of --blocks "
            f"{settings.blocks}"
        )
    slots = blocks * size
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
    return Sizes(blocks, size, max_model_len, tuple(notes))


@dataclass(frozen=True, slots=True)
class PreparedEngine:
    """What every backend drives, and what a manifest has to tell of it: the settings after all
    defaults, and notes."""

    scheduler: Scheduler
    load: Load
    content: Content
    slo: SLO | None
    resolved: dict[str, int | str]
    notes: tuple[str, ...]


def prepare_engine(
    trace: Trace,
    settings: RunSettings,
    sizes: Sizes,
    estimator: StepCost,
    policy: Policy,
) -> PreparedEngine:
    """Build scheduler and load for a prepared trace; the settings have the policy's defaults.

    Raises:
        ConfigError: a name or a parameter is wrong.
    """
    memory, lag = settings.memory, settings.decision_lag
    assert memory is not None, "the policy's memory manager is not filled in"
    assert lag is not None, "the policy's decision lag is not filled in"
    max_output = settings.max_output or default_form(trace)
    outputs = limit_outputs(trace, max_output, sizes.max_model_len)
    content = Content.of(trace, outputs)
    # Streams of their own: the arrivals' is that of the seed itself, as in `trace convert`, and the
    # second one is that of the step noise.
    streams = [np.random.default_rng(s) for s in np.random.SeedSequence(settings.seed).spawn(3)]

    def predictor_of(spec: str, rng: np.random.Generator) -> Predictor:
        return make_predictor(spec, rng, outputs.tokens, trace.predicted_output)

    predictor = foreseer = predictor_of(settings.predictor, streams[0])
    if settings.memory_predictor is not None:
        foreseer = predictor_of(settings.memory_predictor, streams[2])
    scheduler = Scheduler(
        policy,
        make_kv_cache(memory, sizes.blocks, sizes.block_size, content, sizes.max_model_len),
        max_seqs=settings.max_seqs,
        token_budget=settings.token_budget,
        max_model_len=sizes.max_model_len,
        decision_lag=lag,
        predictor=predictor,
        memory_predictor=None if foreseer is predictor else foreseer,
        estimator=estimator.seconds,
    )
    notes = list(sizes.notes)
    num_cut = int(np.count_nonzero(outputs.tokens < trace.output_tokens))
    if num_cut:
        notes.append(f"{num_cut} outputs end at their output limit, before their true length")
    if not scheduler.has_prefix_cache and shares_prefixes(trace, outputs):
        notes.append(
            f"the prompts share prefixes, but {memory!r} memory has no prefix cache: "
            "nothing is reused; --memory paged,prefix_caching=true reuses them"
        )
    slo = None
    if settings.slo_ttft is not None or settings.slo_tpot is not None:
        slo = SLO(settings.slo_ttft, settings.slo_tpot)
    resolved: dict[str, int | str] = {
        "policy": repr(policy),
        "memory": memory,
        "num_blocks": sizes.blocks,
        "block_size": sizes.block_size,
        "max_num_seqs": settings.max_seqs,
        "max_num_batched_tokens": scheduler.token_budget,
        "max_model_len": sizes.max_model_len,
        "decision_lag": scheduler.decision_lag,
        "max_output": max_output,
    }
    load = Load(
        trace,
        outputs,
        concurrency=settings.concurrency,
        ttft_slo=settings.slo_ttft,
        tpot_slo=settings.slo_tpot,
        delay=max(predictor.latency, foreseer.latency),
    )
    return PreparedEngine(scheduler, load, content, slo, resolved, tuple(notes))


@dataclass(frozen=True, slots=True)
class PreparedRun:
    """A backend ready to run and its manifest; `resolved` and `notes` are parts of that.

    `step_time` is what tells a simulation the time; an execution has none.
    """

    backend: Backend
    resolved: dict[str, int | str]
    notes: tuple[str, ...]
    manifest: dict[str, Any]
    step_time: StepCost | RecordedTimes | None = None


def prepare_run(
    trace: Trace,
    settings: RunSettings,
    *,
    policy: Policy | None = None,
    cost: StepCost | None = None,
    noise: StepNoise | None = None,
    check_every: int | None = None,
    progress: Callable[[float, int], None] | None = None,
    command: Sequence[str] = (),
    fast_forward: bool = True,
) -> PreparedRun:
    """Build the simulation that `settings` describe on a prepared trace.

    `policy`, `cost` and `noise` replace what the settings name.

    Raises:
        ConfigError: a name, a parameter or a size is wrong.
        PolicyError: a policy of the user's does not import.
    """
    policy = policy if policy is not None else make_policy(settings.policy)
    settings = with_policy_defaults(settings, policy)
    model, gpu = load_model(settings.model), load_gpu(settings.gpu)
    block_size = own_block_size(settings, model)
    spec, why = choose_step_time(settings, block_size)
    settings = settings.model_copy(update={"step_time": spec})
    told = spec if cost is None else "a step-time model of the caller's"
    step_time = cost or make_step_time(spec, model, gpu, settings.tensor_parallel, block_size)
    estimator = choose_estimator(settings, model, gpu, step_time)
    sizes = choose_sizes(settings, model, gpu)
    engine = prepare_engine(trace, settings, sizes, estimator, policy)
    simulation = Simulation(
        trace,
        engine.scheduler,
        engine.load,
        step_time,
        slo=engine.slo,
        check_every=check_every,
        progress=progress,
        fast_forward=fast_forward,
        noise=make_noise(settings, step_time) if noise is None else noise,
    )
    resolved = {**engine.resolved, "step_time": told}
    on_time = notes_on_time(step_time, trace, settings, resolved)
    notes = (*engine.notes, *(why if cost is None else ()), *on_time)
    manifest = run_manifest(trace, settings, resolved, notes, estimator, command)
    manifest["step_time"] = step_time.describe()
    return PreparedRun(simulation, resolved, notes, manifest, step_time)


def choose_estimator(
    settings: RunSettings,
    model: ModelSpec,
    gpu: GPUSpec,
    step_time: StepCost | RecordedTimes | None = None,
) -> StepCost:
    """What policies may ask for step times: the settings', else `step_time`, else the roofline.

    Raises:
        ConfigError: a name or a parameter is wrong.
    """
    text = settings.estimator
    if text is None and step_time is not None and not isinstance(step_time, RecordedTimes):
        return step_time
    return make_step_cost(
        text or "roofline", model, gpu, settings.tensor_parallel, own_block_size(settings, model)
    )


def run_manifest(
    trace: Trace,
    settings: RunSettings,
    resolved: dict[str, int | str],
    notes: Sequence[str],
    estimator: StepCost,
    command: Sequence[str],
) -> dict[str, Any]:
    """The manifest of a run before it starts, as far as every backend has it."""
    manifest = build_manifest(
        command=command,
        config={**settings.model_dump(), "resolved": resolved},
        trace=trace,
        seed=settings.seed,
        decision_lag=int(resolved["decision_lag"]),
        estimator=estimator.describe(),
    )
    return {**manifest, "notes": list(notes)}
