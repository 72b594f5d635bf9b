"""What an ablation is of: workload, engine and pool, the same for every cell."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from schedsim.config import RunSettings
from schedsim.costs import load_gpu, load_model
from schedsim.errors import ConfigError
from schedsim.experiments.ablation.cells import PAGED, Cell, Kernel
from schedsim.experiments.ablation.kernels import CONTIGUOUS as CONTIGUOUS_KERNEL
from schedsim.experiments.ablation.kernels import PAGED as PAGED_KERNEL
from schedsim.experiments.setup import choose_sizes
from schedsim.sweep.traces import RECIPE, is_recipe, load_trace
from schedsim.traces.token_scaling import scale_tokens
from schedsim.traces.trace import Trace, TraceSource

DEFAULT_REQUESTS = 1000
DEFAULT_TRACE = f"{RECIPE}:azure-conv,requests={DEFAULT_REQUESTS}"

TOKEN_BUDGET = 2048
"""Tokens that an iteration of continuous batching runs and one of a static batch prefills."""


class Candidate(NamedTuple):
    """One way to fill a cell: the memory manager and, of static batches, their size."""

    manager: str
    batch_size: int | None = None


class Pool(NamedTuple):
    """The memory for keys and values that every cell has; tokens of `longest` context."""

    blocks: int
    block_size: int
    kv_bytes: int
    longest: int

    @property
    def naive_batch(self) -> int:
        """How many requests fit whatever becomes of them."""
        return self.blocks // -(-self.longest // self.block_size)


@dataclass(frozen=True, slots=True)
class Setup:
    """An ablation as it is asked for.

    `engine` holds what all cells share: model, GPU, blocks, seats, token budget, context, scale of
    lengths, targets, and the seed of the first repeat. `noise` is the predictor that errs; the two
    kernels are step-time specs. Of a file `requests` are drawn with replacement in each repeat; a
    recipe says its own number.
    """

    engine: RunSettings
    trace: str = DEFAULT_TRACE
    requests: int = DEFAULT_REQUESTS
    repeats: int = 5
    noise: str = "lognormal,sigma=0.5"
    paged_kernel: str = PAGED_KERNEL
    contiguous_kernel: str = CONTIGUOUS_KERNEL

    @property
    def seeds(self) -> range:
        """One for each repeat."""
        return range(self.engine.seed, self.engine.seed + self.repeats)

    def step_time(self, kernel: Kernel) -> str:
        """That of a kernel."""
        return self.paged_kernel if kernel == "paged" else self.contiguous_kernel


def find_pool(engine: RunSettings) -> tuple[Pool, tuple[str, ...]]:
    """The pool of an ablation, and notes on how it was found.

    Raises:
        ConfigError: the model does not fit on the GPU, or not one request of the longest context
            into the pool.
    """
    model = load_model(engine.model)
    sizes = choose_sizes(
        engine.model_copy(update={"memory": PAGED.managers[0]}), model, load_gpu(engine.gpu)
    )
    kv_bytes = sizes.blocks * sizes.block_size * model.kv_bytes_per_token
    pool = Pool(sizes.blocks, sizes.block_size, kv_bytes, sizes.max_model_len)
    if not pool.naive_batch:
        raise ConfigError(
            f"a pool of {pool.blocks} blocks does not hold one request of the longest context, "
            f"{pool.longest} tokens; lower --max-model-len, or raise --blocks"
        )
    return pool, sizes.notes


@dataclass(frozen=True)
class Workload:
    """The requests of each repeat, all at time 0.

    A recipe is generated from the seed, of anything else rows are drawn with replacement. Lengths
    alone are taken: no prefix is shared, no request waits for another.
    """

    setup: Setup
    longest: int

    @cached_property
    def _recorded(self) -> Trace | None:
        return None if is_recipe(self.setup.trace) else load_trace(self.setup.trace, 0)

    def draw(self, seed: int) -> Trace:
        """The requests of the repeat with this seed that the context holds.

        Raises:
            ConfigError, TraceError: the trace cannot be read or made, or none of it fits.
        """
        trace = self._recorded
        if trace is None:
            trace = load_trace(self.setup.trace, seed)
            rows = np.arange(len(trace))
        else:
            rng = np.random.default_rng(np.random.SeedSequence([seed, len(trace)]))
            rows = rng.integers(0, len(trace), self.setup.requests)
        trace = scale_tokens(trace, self.setup.engine.token_scale)
        prompts, outputs = trace.prompt_tokens[rows], trace.output_tokens[rows]
        fits = prompts.astype(np.int64) + outputs <= self.longest
        if not fits.any():
            raise ConfigError(
                f"{self.setup.trace}: no request fits into a context of {self.longest} tokens; "
                "raise --max-model-len or --blocks, or lower --token-scale"
            )
        kept, name = int(fits.sum()), trace.source.name
        dropped = {"longer than the context": len(rows) - kept}
        source = TraceSource(name, "generated", trace.source.sha256, len(rows), dropped)
        return Trace(np.zeros(kept), prompts[fits], outputs[fits], source)


def settings_of(
    setup: Setup, pool: Pool, cell: Cell, candidate: Candidate, seed: int
) -> RunSettings:
    """The settings of one run of a cell, in a burst."""
    policy = cell.scheduling.policy
    budget = setup.engine.token_budget or TOKEN_BUDGET
    if candidate.batch_size is not None:
        policy += f",batch_size={candidate.batch_size},prefill_tokens={budget}"
    predictors = {"none": "none", "oracle": "oracle", "noisy": setup.noise}
    ordered_by, sized_by = cell.predictors
    return setup.engine.model_copy(
        update={
            "policy": policy,
            "memory": candidate.manager,
            "blocks": pool.blocks,
            "max_model_len": pool.longest,
            "token_budget": budget,
            "token_scale": 1.0,
            "predictor": predictors[ordered_by],
            "memory_predictor": None if sized_by is None else predictors[sized_by],
            "step_time": setup.step_time(cell.kernel),
            "arrivals": "burst",
            "seed": seed,
        }
    )
