"""`simulate`: the main job as one Python call."""

from pathlib import Path
from typing import Any

from schedsim.config import make_settings
from schedsim.costs.base import StepCost
from schedsim.experiments.runs import INTERRUPTED, RunOptions, run_policy
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
    **settings: Any,
) -> Result:
    """Simulate `policy` on `trace` and return its tables and summary.

    `policy` is a spec string as on the command line, or a policy object of your own. `settings`
    are the fields of `schedsim.config.RunSettings` (model, gpu, blocks, arrivals, seed, …). `cost`
    replaces the step-time model, `out` names a new directory for the result files, and
    `check_every` N asserts all invariants after every N-th iteration.

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
        RunOptions(None if out is None else Path(out), check_every=check_every),
        policy=policy if isinstance(policy, Policy) else None,
        cost=cost,
    )
    if outcome.stopped == INTERRUPTED:
        raise KeyboardInterrupt
    if outcome.error is not None:
        raise outcome.error
    return outcome.result
