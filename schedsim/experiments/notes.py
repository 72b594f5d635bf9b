"""Remarks on a run: where its times come from, and what came out otherwise than was meant."""

import re
from collections.abc import Mapping

from schedsim.config import RunSettings
from schedsim.costs import FittedCost, RecordedTimes, StepCost, TablesCost
from schedsim.memory import make_manager
from schedsim.results.record import RunRecord
from schedsim.traces.trace import Trace


def notes_on_time(
    step_time: StepCost | RecordedTimes,
    trace: Trace,
    settings: RunSettings,
    resolved: Mapping[str, int | str],
) -> list[str]:
    """Where what tells the time of a simulation is from another trace, policy, model or engine.

    `resolved` are the settings after all defaults.
    """
    if isinstance(step_time, RecordedTimes):
        return _on_recorded(step_time, trace, settings, resolved)
    if isinstance(step_time, FittedCost):
        return _on_fitted(step_time, settings, resolved)
    if isinstance(step_time, TablesCost):
        return _on_tables(step_time, settings)
    return []


def notes_on_outcome(record: RunRecord, step_time: StepCost | RecordedTimes | None) -> list[str]:
    """What of a run that ended came out otherwise than was asked for, and what changes that."""
    notes = []
    rejected = record.requests.rejected()
    if rejected:
        first = rejected[0]
        notes.append(
            f"{len(rejected)} of {len(record.trace)} requests rejected; the first, request "
            f"{first}: {record.requests.reasons[first]}; see --max-model-len, --blocks and "
            "--max-output, or cut the trace with  schedsim trace convert --max-context"
        )
    if record.num_unswapped:
        why = "there is no host tier; --memory paged,host_blocks=N gives the engine one"
        if record.host_blocks:
            why = f"the host tier of {record.host_blocks} blocks did not take them"
        notes.append(
            f"{record.num_unswapped} preemptions were to swap a request out, which was computed "
            f"again instead: {why}"
        )
    if isinstance(step_time, FittedCost | TablesCost):
        notes.extend(step_time.beyond(record.steps))
    return notes


def _on_fitted(
    cost: FittedCost, settings: RunSettings, resolved: Mapping[str, int | str]
) -> list[str]:
    notes = []
    if cost.model not in (None, settings.model):
        fitted_to = f"{cost.model} on {cost.file.provenance.get('device')}"
        notes.append(f"step times are those of {fitted_to}, not of {settings.model}")
    gpus = cost.file.provenance.get("tensor_parallel")
    if gpus not in (None, settings.tensor_parallel):
        notes.append(
            f"step times were fitted with --tensor-parallel {gpus}; here it is "
            f"{settings.tensor_parallel}"
        )
    if cost.block_size not in (None, resolved["block_size"]):
        notes.append(
            f"step times were fitted to KV blocks of {cost.block_size} tokens; here they have "
            f"{resolved['block_size']}"
        )
    kernels = "contiguous" if make_manager(str(resolved["memory"])).in_one_piece else "paged"
    if cost.kernels not in (None, kernels):
        notes.append(
            f"step times were fitted to {cost.kernels} kernels; {resolved['memory']!r} memory has "
            f"{kernels} ones"
        )
    return notes


def _on_tables(cost: TablesCost, settings: RunSettings) -> list[str]:
    about = cost.tables.about
    model = about.get("model")
    if model is None or model.rpartition("/")[2].lower() == settings.model.lower():
        return []
    on = about.get("hardware", "an unknown machine")
    return [
        f"step times are kernels of {model} on {on}, {cost.layers} layers of them, not those of "
        f"{settings.model}"
    ]


def _on_recorded(
    times: RecordedTimes, trace: Trace, settings: RunSettings, resolved: Mapping[str, int | str]
) -> list[str]:
    notes = []
    if not times.complete:
        notes.append(
            f"the run of {times.name} stops after {len(times)} iterations, and so does this one"
        )
    ran = times.manifest["trace"]
    here, there = trace.source.sha256, ran.get("sha256")
    if None not in (here, there) and here != there:
        notes.append(
            f"the run of {times.name} is one of another trace, {ran.get('name')}, not of "
            f"{trace.source.name}: a replay is right only with its own"
        )
    config = times.manifest["config"]
    spec, policy = config.get("policy", ""), config.get("resolved", {}).get("policy", "")
    same = _named(spec) == _named(settings.policy) or _named(policy) == _named(resolved["policy"])
    if not same:
        notes.append(
            f"the run of {times.name} is one of another policy, {spec}, not of {settings.policy}: "
            "a replay is right only with its own"
        )
    return notes


def _named(policy: object) -> str:
    """A policy's own words, without the place in memory that Python gives one that has none."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(policy))
