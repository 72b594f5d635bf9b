"""A run of designed batches on a device: what `schedsim calibrate` measures."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from schedsim.config import ExecutionSettings, RunSettings
from schedsim.experiments.design import Design, Limits
from schedsim.experiments.design_file import DESIGN
from schedsim.experiments.design_policy import DesignPolicy
from schedsim.experiments.design_stages import make_design
from schedsim.experiments.execution import (
    choose_device_sizes,
    load_device_model,
    prepare_execution,
)
from schedsim.experiments.runs import RunOptions, run_prepared
from schedsim.experiments.setup import Sizes
from schedsim.memory import Manager, make_manager
from schedsim.memory.managers import Buddy, Contiguous
from schedsim.results.directory import write_whole
from schedsim.results.stored_run import StoredRun, load_run
from schedsim.traces.trace import Trace, TraceSource

LARGEST_BUDGET = 16384
"""Tokens of the largest batch of chunks where the settings name no budget."""


class DesignedRun(NamedTuple):
    """The requests of a design as a trace, and the policy that runs them."""

    trace: Trace
    policy: DesignPolicy


def measure(
    settings: RunSettings,
    execution: ExecutionSettings,
    out: Path,
    *,
    passes: int,
    time_limit: float,
    command: Sequence[str] = (),
    progress: Callable[[float, int], None] | None = None,
) -> StoredRun:
    """Run a design on the device, for little more than `time_limit` seconds, into a new folder.

    Loading the model and compiling kernels come before that. The design follows from the settings,
    their seed included, and from the sizes that the engine comes to.

    Raises:
        ConfigError: as `load_device_model` and `prepare_execution`.
        ExecutionError: the device cannot go on.
        OutputError: the folder `out` is there and is not empty, or cannot be written.
    """
    settings = with_design_defaults(settings)
    model = load_device_model(settings, execution)
    sizes = choose_device_sizes(settings, model)
    trace, policy = designed_run(settings, sizes, passes, time_limit)
    prepared = prepare_execution(
        trace,
        settings,
        model,
        policy=policy,
        shuffle=np.random.default_rng(settings.seed),
        progress=progress,
        command=command,
    )
    outcome = run_prepared(prepared, RunOptions(out, command=command))
    if outcome.is_interrupted:
        raise KeyboardInterrupt
    if outcome.error is not None:
        raise outcome.error
    write_whole(out / DESIGN, policy.file().model_dump_json(indent=1) + "\n")
    return load_run(out)


def with_design_defaults(settings: RunSettings) -> RunSettings:
    """The settings with a memory manager and a token budget, under the design's name."""
    return settings.model_copy(
        update={
            "policy": DesignPolicy.name,
            "memory": settings.memory or DesignPolicy.default_memory,
            "token_budget": settings.token_budget or LARGEST_BUDGET,
        }
    )


def designed_run(
    settings: RunSettings, sizes: Sizes, passes: int, time_limit: float
) -> DesignedRun:
    """What an engine with these settings, after `with_design_defaults`, and sizes is to run."""
    limits = limits_of(settings, sizes)
    design = make_design(limits, passes, np.random.default_rng(settings.seed))
    return DesignedRun(
        _trace_of(design, settings.seed), DesignPolicy(design, time_limit, settings.seed)
    )


def limits_of(settings: RunSettings, sizes: Sizes) -> Limits:
    """What such an engine can run."""
    assert settings.memory is not None, "no memory manager is filled in"
    assert settings.token_budget is not None, "no token budget is filled in"
    manager = make_manager(settings.memory)
    block_size, longest = sizes.block_size, sizes.max_model_len
    reserve = getattr(manager, "reserve", None)

    def held(prompt: int, output: int) -> int:
        tokens = longest if reserve == "max" else prompt + output
        if reserve == "pow2":
            tokens += output
        blocks = -(-tokens // block_size)
        if isinstance(manager, Buddy):
            blocks = 1 << (blocks - 1).bit_length()
        return blocks * block_size

    return Limits(
        max_seqs=settings.max_seqs,
        token_budget=settings.token_budget,
        max_model_len=longest,
        slots=sizes.blocks * block_size,
        held=held,
        host_slots=getattr(manager, "host_blocks", 0) * block_size,
        outgrows=_outgrows(manager),
        compacts=isinstance(manager, Contiguous) and manager.compaction,
    )


def _outgrows(manager: Manager) -> bool:
    if not isinstance(manager, Contiguous | Buddy) or manager.overrun != "move":
        return False
    return manager.reserve in ("predicted", "pow2", "exact")


def _trace_of(design: Design, seed: int) -> Trace:
    """The design's requests, all at time 0; their output limits are their outputs."""
    prompts, outputs = (
        np.array(column, dtype=np.int32) for column in (design.prompts, design.outputs)
    )
    predicted = np.array(design.predicted)
    digest = hashlib.sha256()
    for column in (prompts, outputs, predicted):
        digest.update(column.tobytes())
    return Trace(
        np.zeros(len(prompts)),
        prompts,
        outputs,
        TraceSource(
            f"designed batches, seed {seed}",
            "drawn",
            sha256=digest.hexdigest(),
            rows_read=len(prompts),
        ),
        max_output_tokens=outputs,
        predicted_output=predicted,
    )
