"""`Arm`: one side of a comparison, a run or its replications, and how folders become arms."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from schedsim.errors import ResultError
from schedsim.results.directory import MANIFEST
from schedsim.results.quantiles import Floats, Ints
from schedsim.results.result import Result
from schedsim.results.stored_run import float_column, load_manifest, load_outcome

COLUMNS = ("ttft_s", "tpot_s", "e2e_s", "queue_s", "max_itl_s")


@dataclass(frozen=True, slots=True)
class Measured:
    """What a comparison reads of one run; columns by request in trace order, NaN for none."""

    config: dict[str, Any]
    summary: dict[str, Any]
    arrival: Floats
    prompt_tokens: Ints
    columns: dict[str, Floats] = field(repr=False)

    @classmethod
    def of(cls, config: dict[str, Any], summary: dict[str, Any], requests: Any) -> "Measured":
        """From a run's configuration, its summary and its table of requests."""
        return cls(
            config,
            summary,
            float_column(requests, "arrival"),
            requests["prompt_tokens"].to_numpy(),
            {name: float_column(requests, name) for name in COLUMNS},
        )

    @classmethod
    def of_result(cls, config: dict[str, Any], result: Result) -> "Measured":
        """From a run that just ended."""
        return cls.of(config, result.summary, result.requests_table)

    @classmethod
    def load(cls, path: Path) -> "Measured":
        """From the directory of a run.

        Raises:
            ResultError: as `load_run`.
        """
        manifest, summary, requests = load_outcome(path)
        return cls.of(manifest["config"], summary, requests)

    def met_objectives(self) -> Floats | None:
        """1 for each request that met the run's objectives, 0 for the others.

        None where there are none, or where requests have some of their own, which the table of
        requests does not hold: then these are not the share that the summary tells.
        """
        ttft_slo, tpot_slo = self.config["slo_ttft"], self.config["slo_tpot"]
        goodput = self.summary["goodput"]
        if goodput is None:
            return None
        met = ~np.isnan(self.columns["e2e_s"])
        if ttft_slo is not None:
            met &= self.columns["ttft_s"] <= ttft_slo
        if tpot_slo is not None:
            tpot = self.columns["tpot_s"]
            met &= np.isnan(tpot) | (tpot <= tpot_slo)
        values = met.astype(np.float64)
        return values if values.mean() == goodput["whole"]["share"] else None

    def same_load(self, other: "Measured") -> bool:
        """Whether both served the same requests at the same times."""
        return np.array_equal(self.prompt_tokens, other.prompt_tokens) and np.array_equal(
            self.arrival, other.arrival, equal_nan=True
        )


@dataclass(frozen=True, slots=True)
class Arm:
    """A run, or runs that differ in their seed alone, by seed."""

    name: str
    runs: tuple[Measured, ...]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of its runs."""
        return tuple(run.config["seed"] for run in self.runs)


def load_arms(paths: Sequence[Path]) -> list[Arm]:
    """The arms in the directories that a user names, in their order.

    A run is an arm. A folder of runs that differ in nothing but their seeds is one arm with
    replications; of any other folder each folder in it is looked at in turn.

    Raises:
        ResultError: no run is there, or one cannot be read.
    """
    folders = _all_arms(paths)
    names = _names([runs[0] if len(runs) == 1 else runs[0].parent for runs in folders])
    arms = []
    for name, runs in zip(names, folders, strict=True):
        loaded = sorted((Measured.load(run) for run in runs), key=lambda run: run.config["seed"])
        arms.append(Arm(name, tuple(loaded)))
    return arms


def find_runs(paths: Sequence[Path]) -> dict[str, Path]:
    """Every run in the directories that a user names, by its name.

    Raises:
        ResultError: no run is there.
    """
    runs = [run for arm in _all_arms(paths) for run in arm]
    return dict(zip(_names(runs), runs, strict=True))


def _all_arms(paths: Sequence[Path]) -> list[list[Path]]:
    folders: list[list[Path]] = []
    for path in paths:
        found = _find(path)
        if not found:
            load_manifest(path)  # raises: it says what is wrong with the path
        folders += found
    return folders


def _find(path: Path) -> list[list[Path]]:
    """The directories of the runs of each arm below `path`."""
    if (path / MANIFEST).is_file():
        return [[path]]
    if not path.is_dir():
        return []
    children = sorted(child for child in path.iterdir() if child.is_dir())
    runs = [child for child in children if (child / MANIFEST).is_file()]
    if len(runs) == len(children) > 1 and _are_replications(runs):
        return [runs]
    return [arm for child in children for arm in _find(child)]


def _are_replications(runs: Sequence[Path]) -> bool:
    configs = [dict(load_manifest(run)["config"]) for run in runs]
    seeds = [config.pop("seed", None) for config in configs]
    return len(set(seeds)) == len(seeds) and all(config == configs[0] for config in configs)


def _names(paths: Sequence[Path]) -> list[str]:
    """The paths as the user may call them, without what all have in common.

    Raises:
        ResultError: one path stands twice.
    """
    absolute = [os.path.abspath(path) for path in paths]
    for place, path in enumerate(absolute):
        if path in absolute[:place]:
            raise ResultError(f"{paths[place]} is named twice; give each run once")
    if len(absolute) == 1:
        return [Path(absolute[0]).name]
    common = os.path.commonpath([os.path.dirname(path) for path in absolute])
    return [os.path.relpath(path, common) for path in absolute]
