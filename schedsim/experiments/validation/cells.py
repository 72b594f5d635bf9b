"""`Cell`: the repeats of one policy under one load, and how runs become cells."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from schedsim.config import RunSettings, make_settings
from schedsim.errors import ConfigError, ResultError, TraceError
from schedsim.experiments.runs import folder_names
from schedsim.experiments.setup import prepare_trace
from schedsim.experiments.step_time import ROOFLINE, choose_step_time
from schedsim.results.stored_run import StoredRun
from schedsim.traces.trace import Trace


@dataclass(frozen=True, slots=True)
class Cell:
    """Runs that were asked for alike. `trace` is the one they served, prepared as `settings` say.

    `name` is what the cell is called and the name of its folder.
    """

    name: str
    runs: tuple[StoredRun, ...]
    settings: RunSettings
    trace: Trace = field(repr=False)

    @property
    def policy(self) -> str:
        """The policy's spec."""
        return self.settings.policy

    def same_but_for_policy(self, other: "Cell") -> bool:
        """Whether both served the same requests at the same times, on engines of one size."""
        pairs = (
            (getattr(self.trace, name), getattr(other.trace, name))
            for name in ("arrival", "prompt_tokens", "output_tokens")
        )
        is_same = all(len(a) == len(b) and (a == b).all() for a, b in pairs)
        return is_same and self._engine == other._engine

    @property
    def _engine(self) -> tuple[object, ...]:
        chosen = self.settings
        assert chosen.blocks is not None, "a cell's sizes are those that came out"
        slots = chosen.blocks * chosen.block_size
        return chosen.model, slots, chosen.max_seqs, chosen.concurrency, self.ran_on

    @property
    def ran_on(self) -> dict[str, Any]:
        """The kind of device, and what else than settings the time of an iteration depends on."""
        return _ran_on(self.runs[0])


def make_cells(runs: Sequence[StoredRun], trace: Trace) -> list[Cell]:
    """Runs of `trace` by what was asked for and what ran it, in the order in which each cell was
    first named.

    Raises:
        TraceError: a run served another trace, or read it otherwise.
        ResultError: a manifest is not of this version, or a run is named twice.
        ConfigError: the repeats of a cell came out with other sizes.
    """
    for place, run in enumerate(runs):
        if any(run.path == other.path or _is_copy(run, other) for other in runs[:place]):
            raise ResultError(f"{run.path} is there twice; give each run once")
        _check_trace(run, trace)
    groups: list[list[StoredRun]] = []
    for run in runs:
        for group in groups:
            if _asked(group[0]) == _asked(run):
                _check_alike(group[0], run)
                group.append(run)
                break
        else:
            groups.append([run])
    cells = []
    for name, group in zip(_names(groups), groups, strict=True):
        settings = settings_of(group[0])
        prepared = prepare_trace(trace, settings)
        _check_reading(group[0], prepared)
        cells.append(Cell(name, tuple(group), settings, prepared))
    return cells


def settings_of(run: StoredRun) -> RunSettings:
    """The settings of a run with every size as it came out, so that nothing is chosen anew.

    Raises:
        ResultError: the manifest holds no settings of this version.
    """
    config = dict(run.manifest["config"])
    resolved = config.pop("resolved", {})
    sizes = {
        "blocks": "num_blocks",
        "block_size": "block_size",
        "max_model_len": "max_model_len",
        "token_budget": "max_num_batched_tokens",
        "max_output": "max_output",
    }
    try:
        config |= {name: resolved[chosen] for name, chosen in sizes.items()}
        settings = make_settings(**config)
    except (ConfigError, KeyError, TypeError) as error:
        raise ResultError(
            f"{run.path}: the manifest's settings are not of this version ({error}); run it again"
        ) from None
    if settings.estimator is None:
        # What policies were told in the run, not what tells the time of this simulation.
        asked = ROOFLINE
        if not run.is_measured:
            asked = choose_step_time(settings, settings.block_size).spec
        if asked.startswith("recorded"):
            asked = ROOFLINE
        settings = settings.model_copy(update={"estimator": asked})
    return settings


def _is_copy(run: StoredRun, other: StoredRun) -> bool:
    """Equal steps alone may be those of two policies in a simulation."""
    return run.steps_sha256 == other.steps_sha256 and _asked(run) == _asked(other)


def _asked(run: StoredRun) -> dict[str, Any]:
    config = run.manifest["config"]
    asked = {name: value for name, value in config.items() if name != "resolved"}
    return asked | _ran_on(run)


def _ran_on(run: StoredRun) -> dict[str, Any]:
    """Not which card of a kind: repeats may be of two. Threads count where they compute."""
    execution = run.execution
    names = ["weights", "dtype", "attention", "temperature"]
    if str(execution.get("device")).startswith("cpu"):
        names.append("threads")
    return {"device": run.manifest.get("device")} | {name: execution.get(name) for name in names}


def _check_alike(first: StoredRun, run: StoredRun) -> None:
    one, other = (dict(r.manifest["config"].get("resolved") or {}) for r in (first, run))
    for name in sorted(one.keys() | other.keys()):
        if name != "policy" and one.get(name) != other.get(name):
            raise ConfigError(
                f"{first.path} and {run.path} were asked for alike and came out with "
                f"{name} {one.get(name)} and {other.get(name)}: they are no repeats; run them "
                "again with that given, or validate each on its own"
            )


def _names(groups: Sequence[Sequence[StoredRun]]) -> list[str]:
    """A distinct name for each cell: its policy, and what else sets it apart from that policy's
    other cells."""
    configs = [_asked(group[0]) for group in groups]
    texts = []
    for config in configs:
        peers = [other for other in configs if other["policy"] == config["policy"]]
        differ = [n for n in config if any(other.get(n) != config[n] for other in peers)]
        texts.append(",".join([str(config["policy"]), *(f"{n}={config[n]}" for n in differ)]))
    return folder_names(texts)


def _check_trace(run: StoredRun, trace: Trace) -> None:
    ran = run.manifest["trace"]
    if trace.source.sha256 != ran.get("sha256"):
        raise TraceError(
            f"{trace.source.name} (sha256 {_short(trace.source.sha256)}) is not the trace of "
            f"{run.path}, which ran {ran.get('name')} (sha256 {_short(ran.get('sha256'))}); "
            "give that one"
        )


def _check_reading(run: StoredRun, trace: Trace) -> None:
    """What was done to the trace stands in its notes.

    Raises:
        TraceError: they are not those of the run.
    """
    ran = run.manifest["trace"]
    here, there = list(trace.source.notes), list(ran.get("notes") or [])
    if here != there:
        differs = sorted(set(here) ^ set(there)) or here
        raise TraceError(
            f"{trace.source.name} was read otherwise for {run.path}, see --spread-ticks and "
            f"--think-cap: {'; '.join(differs)}"
        )
    if len(trace) != run.requests.num_rows:
        raise TraceError(
            f"{trace.source.name} has {len(trace):,} requests, {run.path} {run.requests.num_rows:,}"
            "; give the trace as it was run"
        )


def _short(sha256: str | None) -> str:
    return "unknown" if sha256 is None else f"{sha256[:12]}…"
