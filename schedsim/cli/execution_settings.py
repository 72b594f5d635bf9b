"""Settings of an execution from the options of a command, for `execute` and `validate`."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from schedsim.cli.options import choose_arrivals, parse_slo
from schedsim.config import (
    SIMULATED_ONLY,
    ExecutionSettings,
    RunSettings,
    choose_model,
    make_execution_settings,
    make_settings,
)

_MADE_OF_OTHERS = {"policy", "model", "arrivals", "slo_ttft", "slo_tpot"}


class ExecutionPlan(NamedTuple):
    """What is executed on what: the settings of each policy, and of the device for all."""

    settings: list[RunSettings]
    execution: ExecutionSettings


def plan_executions(options: Mapping[str, Any], policies: Sequence[str]) -> ExecutionPlan:
    """The plan for these policies; an option has the name of the setting that it sets.

    Raises:
        ConfigError: a value is wrong, or options exclude each other.
    """
    given = {name: options[name] for name in ExecutionSettings.model_fields}
    weights = given.pop("weights")
    execution = make_execution_settings(**given, weights=None if weights is None else str(weights))
    left_out = _MADE_OF_OTHERS | SIMULATED_ONLY
    alike = {name: options[name] for name in RunSettings.model_fields if name not in left_out}
    settings = [
        make_settings(
            policy=spec,
            model=choose_model(options["model"], execution),
            arrivals=choose_arrivals(options["arrivals"], options["all_at_once"]),
            **parse_slo(options["slo"]),
            **alike,
        )
        for spec in policies
    ]
    return ExecutionPlan(settings, execution)
