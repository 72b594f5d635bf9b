"""`simulate` and `execute`: the main jobs as one Python call each."""

from pathlib import Path
from typing import Any

from schedsim.config import (
    check_execution_keywords,
    choose_model,
    make_execution_settings,
    make_settings,
)
from schedsim.costs.base import StepCost
from schedsim.experiments.execution import execute_policy, load_device_model
from schedsim.experiments.runs import RunOptions, run_policy
from schedsim.experiments.setup import prepare_trace
from schedsim.policies.base import Policy
from schedsim.results import Result
from schedsim.traces.trace import Trace


def simulate(
    trace: Trace,
    policy: str | Policy = "vllm",
    *,
    cost: StepCost | None = None,
    out: Path | str | None = None,
    check_every: int | None = None,
    fast_forward: bool = True,
    **settings: Any,
) -> Result:
    """Simulate `policy` on `trace` and return its tables and summary.

    `policy` is a spec string as on the command line, or a policy object of your own. `settings`
    are the fields of `schedsim.config.RunSettings` (model, gpu, blocks, arrivals, seed, …). `cost`
    replaces the step-time model, `out` names a new directory for the result files, and
    `check_every` N asserts all invariants after every N-th iteration. `fast_forward` False decides
    every iteration by itself, slower, with the same results.

    Raises:
        ConfigError: a setting is wrong.
        PolicyError: the policy raised or did something impossible; with `out`, what had finished
            is kept there.
        OutputError: `out` cannot be written.
    """
    is_object = isinstance(policy, Policy)
    chosen = make_settings(policy=repr(policy) if is_object else policy, **settings)
    outcome = run_policy(
        prepare_trace(trace, chosen),
        chosen,
        RunOptions(
            None if out is None else Path(out), check_every=check_every, fast_forward=fast_forward
        ),
        policy=policy if isinstance(policy, Policy) else None,
        cost=cost,
    )
    return outcome.whole()


def execute(
    trace: Trace,
    policy: str | Policy = "vllm",
    *,
    model: str | None = None,
    weights: Path | str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    attention: str = "torch",
    threads: int | None = None,
    out: Path | str | None = None,
    check_every: int | None = None,
    **settings: Any,
) -> Result:
    """Run `policy` on `trace` on a real model, in real time, and return its tables and summary.

    `weights` is a directory in Hugging Face's layout; without it `model` (default: `tiny`) gets
    random weights from the seed. `device` is `cpu`, `cuda` or `cuda:N`, `dtype` the type to compute
    in; see `schedsim.config.ExecutionSettings`. The rest is as in `simulate`, but for `step_time`
    and `tensor_parallel`, which an execution has not.

    Raises:
        ConfigError: a setting is wrong, torch is not installed, or the weights do not load.
        ExecutionError: the device cannot go on; with `out`, what had finished is kept there.
        PolicyError, OutputError: as `simulate`.
    """
    check_execution_keywords(settings)
    execution = make_execution_settings(
        weights=None if weights is None else str(weights),
        device=device,
        dtype=dtype,
        attention=attention,
        threads=threads,
    )
    is_object = isinstance(policy, Policy)
    chosen = make_settings(
        policy=repr(policy) if is_object else policy,
        model=choose_model(model, execution),
        **settings,
    )
    return execute_policy(
        prepare_trace(trace, chosen),
        chosen,
        RunOptions(None if out is None else Path(out), check_every=check_every),
        model=load_device_model(chosen, execution),
        policy=policy if isinstance(policy, Policy) else None,
    ).whole()
