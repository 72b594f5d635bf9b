"""From settings to an engine on a device; torch is imported when something is called."""

import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib import metadata, util
from typing import TYPE_CHECKING, Any

import numpy as np

from schedsim.config import MAX_BLOCKS, ExecutionSettings, RunSettings
from schedsim.costs import load_gpu
from schedsim.errors import ConfigError
from schedsim.experiments.runs import Outcome, RunOptions, run_prepared
from schedsim.experiments.setup import (
    PreparedRun,
    Sizes,
    choose_estimator,
    fit_context,
    own_block_size,
    prepare_engine,
    run_manifest,
    with_policy_defaults,
)
from schedsim.memory.paged import PagedKVCache
from schedsim.policies import Policy
from schedsim.policies.loading import make_policy
from schedsim.traces.trace import Trace

if TYPE_CHECKING:
    import torch

    from schedsim.executor.config import ModelConfig
    from schedsim.executor.kept_parts import KeptParts
    from schedsim.executor.model import Decoder
    from schedsim.executor.weights import DecoderWeights

INSTALL = "pip install 'schedsim[executor]'"

PACKAGES = ("torch", "safetensors", "transformers")

UNKNOWN_BUDGET = 16384
"""Tokens of an iteration for which memory is kept where the policy chooses the budget."""

MEASURED = "measured"
"""What stands in the manifest where a simulation has its step time."""


@dataclass(frozen=True, slots=True)
class DeviceModel:
    """A model on its device, loaded once for all runs of a command.

    `described` is the manifest's section `execution`, `device` the hardware's own name.
    `free_bytes` is what the weights leave of the device's memory, measured before the first KV
    cache. `kept` lends each run what the run before left on the device, if the sizes are the same.
    """

    decoder: "Decoder"
    described: dict[str, Any]
    device: str
    free_bytes: int
    kept: "KeptParts"


def load_device_model(settings: RunSettings, execution: ExecutionSettings) -> DeviceModel:
    """Read or draw the weights and put them on the device.

    Raises:
        ConfigError: torch is not installed; an unknown device, type or model; weights that are
            missing, damaged, of other shapes than their config.json says, or too large.
    """
    require_torch()
    import torch

    from schedsim.executor.backends import choose_attention, make_decoder
    from schedsim.executor.checkpoint import check_weights_directory
    from schedsim.executor.config import load_config
    from schedsim.executor.device import (
        choose_dtype,
        device_name,
        device_uuid,
        free_bytes,
        open_device,
    )
    from schedsim.executor.kept_parts import KeptParts

    device = open_device(execution.device)
    attention = choose_attention(execution.attention, device)
    dtype = choose_dtype(execution.dtype, device)
    if execution.threads is not None:
        torch.set_num_threads(execution.threads)
    if execution.weights is not None:
        check_weights_directory(execution.weights)
    config = load_config(settings.model)
    weights = _load_weights(config, execution.weights, settings.seed, dtype, device)
    decoder = make_decoder(attention, config, weights)
    described = execution.model_dump() | {
        "weights": execution.weights or f"random, seed {settings.seed}",
        "device": str(device),
        "device_uuid": device_uuid(device),
        "attention": attention,
        "dtype": str(dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "seed": settings.seed,
    }
    free = free_bytes(device)
    return DeviceModel(decoder, described, device_name(device), free, KeptParts(device))


def _load_weights(
    config: "ModelConfig",
    directory: str | None,
    seed: int,
    dtype: "torch.dtype",
    device: "torch.device",
) -> "DecoderWeights":
    """The weights in `directory`, or random ones; a ConfigError if they do not fit."""
    from schedsim.executor.checkpoint import load_weights
    from schedsim.executor.device import is_out_of_memory
    from schedsim.executor.weights import random_weights

    try:
        if directory is not None:
            return load_weights(directory, config, dtype=dtype, device=device)
        return random_weights(config, seed, dtype=dtype, device=device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        size = config.shape.num_parameters * dtype.itemsize / 1e9
        raise ConfigError(
            f"the {size:.1f} GB of weights of {config.shape.name} do not fit on {device}; take a "
            f"smaller model or a narrower --dtype ({str(error).splitlines()[0]})"
        ) from None


def execute_policy(
    trace: Trace,
    settings: RunSettings,
    options: RunOptions,
    *,
    model: DeviceModel,
    policy: Policy | None = None,
    progress: Callable[[float, int], None] | None = None,
) -> Outcome:
    """Execute one policy on a prepared trace and write its directory, if `options` name one.

    As `run_policy`, in real time on the loaded `model`.

    Raises:
        ConfigError, PolicyError: before the run starts.
        OutputError: the directory or a file cannot be written.
    """
    prepared = prepare_execution(
        trace,
        settings,
        model,
        policy=policy,
        check_every=options.check_every,
        progress=progress,
        command=options.command,
    )
    outcome = run_prepared(prepared, options)
    error: BaseException | None = outcome.error
    while error is not None:  # what its frames hold is the KV cache, whose room the next run needs
        traceback.clear_frames(error.__traceback__)
        error = error.__context__
    return outcome


def with_kernels(model: DeviceModel, kernels: str | None) -> DeviceModel:
    """The same model on the same device, with these kernels as `ExecutionSettings` has them."""
    return replace(model, described={**model.described, "kernels": kernels})


def prepare_execution(
    trace: Trace,
    settings: RunSettings,
    model: DeviceModel,
    *,
    policy: Policy | None = None,
    shuffle: np.random.Generator | None = None,
    check_every: int | None = None,
    progress: Callable[[float, int], None] | None = None,
    command: Sequence[str] = (),
) -> PreparedRun:
    """Build the execution that `settings` describe on a prepared trace; one at a time on a model.

    `policy` replaces what the settings name. With `shuffle` the blocks of a paged cache lie in an
    order that it draws, as in an engine that has run for long.

    Raises:
        ConfigError: a name, a parameter or a size is wrong, or there is no memory for the blocks.
        PolicyError: a policy of the user's does not import.
    """
    from schedsim.executor.backends import make_runner
    from schedsim.executor.doorbell import Doorbell
    from schedsim.executor.execution import Execution
    from schedsim.executor.monitor import open_monitor

    policy = policy if policy is not None else make_policy(settings.policy)
    # As the manifest tells it: no model says how long an iteration took.
    settings = settings.model_copy(update={"step_time": MEASURED})
    if settings.decision_lag is None and model.decoder.device.type == "cuda":
        settings = settings.model_copy(update={"decision_lag": 1})
    settings = with_policy_defaults(settings, policy)
    decoder = model.decoder
    shape = decoder.config.shape
    sizes = choose_device_sizes(settings, model)
    estimator = choose_estimator(settings, shape, load_gpu(settings.gpu))
    engine = prepare_engine(trace, settings, sizes, estimator, policy)
    kv_cache = engine.scheduler.kv_cache
    if kv_cache.has_stale_keys:
        raise ConfigError(
            f"--memory {engine.resolved['memory']}: with stale_keys a request may find what was "
            "never computed, and an execution reads it; leave it out"
        )
    if shuffle is not None and isinstance(kv_cache, PagedKVCache):
        kv_cache.shuffle_free(shuffle)
    clock = time.perf_counter
    runner = make_runner(
        decoder,
        model.kept,
        kv_cache,
        engine.content,
        clock,
        max_seqs=engine.scheduler.max_seqs,
        max_model_len=engine.scheduler.max_model_len,
        temperature=model.described["temperature"],
        workspace=workspace_bytes(settings, model),
        kernels=model.described["kernels"],
    )
    backend = Execution(
        trace,
        engine.scheduler,
        engine.load,
        runner,
        clock=clock,
        sleep=time.sleep,
        doorbell=Doorbell(engine.load.open_times, clock),
        monitor=open_monitor(decoder.device, clock),
        slo=engine.slo,
        check_every=check_every,
        progress=progress,
    )
    resolved = {**engine.resolved, "step_time": MEASURED}
    manifest = run_manifest(trace, settings, resolved, engine.notes, estimator, command)
    manifest["execution"] = {**model.described, **runner.described}
    manifest["device"] = model.device
    manifest["versions"] |= {name: _version(name) for name in PACKAGES}
    return PreparedRun(backend, resolved, engine.notes, manifest)


def choose_device_sizes(settings: RunSettings, model: DeviceModel) -> Sizes:
    """Block count and context length of an engine whose weights are on the device.

    Raises:
        ConfigError: the weights leave no room for a block.
    """
    from schedsim.executor.device import room_for_cache
    from schedsim.executor.kv_cache import token_bytes

    decoder = model.decoder
    shape = decoder.config.shape
    size = own_block_size(settings, shape)
    if settings.blocks is not None:
        return fit_context(settings, shape, settings.blocks)
    cache_bytes, why = room_for_cache(
        decoder.device,
        model.free_bytes,
        workspace_bytes(settings, model),
    )
    room = cache_bytes // (token_bytes(shape, decoder.dtype) * size)
    if room < 1:
        raise ConfigError(
            f"no KV block of {size} tokens fits into {why} on {decoder.device}; take a smaller "
            "model, a narrower --dtype or a smaller --block-size"
        )
    most = settings.max_seqs * -(-(settings.max_model_len or shape.max_model_len) // size)
    blocks = min(room, most, MAX_BLOCKS)
    if blocks == most:
        why = f"{settings.max_seqs} seats of the longest context"
    sizes = fit_context(settings, shape, blocks)
    note = f"{blocks} KV blocks of {size} tokens on {decoder.device}: {why}; --blocks sets others"
    return sizes._replace(notes=(note, *sizes.notes))


def workspace_bytes(settings: RunSettings, model: DeviceModel) -> int:
    """What a forward pass needs beside weights and cache, in bytes, generously.

    The activations of a layer for as many tokens as an iteration runs, and a row of logits for
    every seat.
    """
    shape, seats = model.decoder.config.shape, settings.max_seqs
    value_bytes: int = model.decoder.dtype.itemsize
    heads = 2 * shape.heads + 2 * shape.kv_heads
    values = 4 * shape.hidden + heads * shape.head_dim + 3 * shape.intermediate
    activations = ((settings.token_budget or UNKNOWN_BUDGET) + seats) * values * value_bytes
    return int(1.5 * activations) + 2 * seats * shape.vocab * value_bytes


def missing_packages() -> list[str]:
    """Packages that an execution needs and this Python has not."""
    return [name for name in ("torch", "safetensors") if util.find_spec(name) is None]


def require_torch() -> None:
    """Stop, before anything else is done, where the executor cannot run.

    Raises:
        ConfigError: torch or safetensors is not installed; says how to get it.
    """
    missing = missing_packages()
    if missing:
        raise ConfigError(
            f"the executor needs {' and '.join(missing)}, which this Python has not: {INSTALL}"
        )


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
