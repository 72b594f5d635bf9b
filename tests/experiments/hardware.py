"""A made-up GPU: a step time with the pieces that hardware has, and its noise."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from schedsim.config import RunSettings
from schedsim.costs.base import StepCost, StepParts
from schedsim.costs.features import Features, Padding, features_of
from schedsim.experiments.design_file import DESIGN
from schedsim.experiments.designed_run import designed_run, with_design_defaults
from schedsim.experiments.runs import RunOptions, run_prepared
from schedsim.experiments.setup import Sizes, prepare_run
from schedsim.results.stored_run import StoredRun, load_run
from schedsim.scheduler.batch import BatchShape

GRAPHS = Padding(
    decodes=[1, 2, 4, 8, 16, 32, 48, 64],
    mixed=[32, 64, 128, 256, 512, 1024],
    chunks=[8, 8, 8, 8, 16, 32],
)


class Hardware:
    """Seconds of a model of 8 billion parameters on a large GPU, roughly.

    Weights are read once for up to 240 tokens, then arithmetic takes over; contexts that one
    program reads take as long as a short one; an iteration that no graph holds pays its launches;
    `noise` is the relative scatter, and one iteration in 200 meets a pause of 4 ms.
    """

    def __init__(self, noise: float = 0.0, seed: int = 0) -> None:
        self.noise = noise
        self._rng = np.random.default_rng(seed)

    def parts(self, shape: BatchShape) -> StepParts:
        exact = self.exact(features_of(shape, GRAPHS))
        if not self.noise:
            return exact
        factor = float(np.exp(self.noise * self._rng.standard_normal()))
        pause = 4e-3 if self._rng.random() < 1 / 200 else 0.0
        return StepParts(exact.host * factor, exact.device * factor + pause, exact.gap)

    def seconds(self, shape: BatchShape) -> float:
        return sum(self.exact(features_of(shape, GRAPHS)))

    def exact(self, batch: Features) -> StepParts:
        """Without noise."""
        products = max(4.8e-3, 20e-6 * batch.tokens) if batch.tokens else 0.0
        decodes = max(2e-4, 4e-8 * batch.decode_context) if batch.decode_requests else 0.0
        device = (
            1e-4
            + products
            + decodes
            + 3e-8 * batch.longest_context
            + 1.2e-9 * batch.prefill_attention
            + 2e-8 * batch.prefill_context
            + (8e-4 if batch.prefill_requests else 0.0)
            + 3e-3 * batch.launched
            + 2e-6 * batch.sampled
            + 4e-5 * batch.swapped_blocks
        )
        host = 8e-5 + 1e-6 * batch.decode_requests + 3e-8 * batch.prefill_tokens
        return StepParts(host, device, 1.5e-5)

    def describe(self) -> dict[str, Any]:
        return {"name": "hardware"}


def engine(**settings: Any) -> RunSettings:
    """A small engine on this hardware."""
    chosen = {
        "model": "llama-3-8b",
        "memory": "paged,host_blocks=600",
        "blocks": 4000,
        "max_seqs": 64,
        "token_budget": 2048,
        "max_model_len": 4096,
    }
    return RunSettings(**{**chosen, **settings})


def run_design(
    folder: Path,
    hardware: StepCost,
    settings: RunSettings,
    passes: int = 1,
    limit: float = 1e9,
    check_every: int | None = None,
    padding: Padding = GRAPHS,
) -> StoredRun:
    """What `measure` writes, of a simulation that pretends to be one."""
    filled = with_design_defaults(settings)
    sizes = Sizes(filled.blocks or 0, filled.block_size, filled.max_model_len or 0, ())
    trace, policy = designed_run(filled, sizes, passes, limit)
    prepared = prepare_run(trace, filled, policy=policy, cost=hardware, check_every=check_every)
    prepared.manifest["execution"] = {"device": "cuda:0", "padding": padding.model_dump()}
    outcome = run_prepared(prepared, RunOptions(folder))
    assert outcome.error is None, outcome.error
    (folder / DESIGN).write_text(json.dumps(policy.file().model_dump()))
    return load_run(folder)
