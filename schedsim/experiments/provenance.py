"""Where a calibration comes from, and which runs may go into one."""

from collections.abc import Sequence
from typing import Any

from schedsim.errors import ConfigError
from schedsim.results.stored_run import StoredRun

_MACHINE = (
    "device",
    "model",
    "tensor_parallel",
    "dtype",
    "attention",
    "kernels",
    "threads",
    "block_size",
    "padding",
)


def check_alike(runs: Sequence[StoredRun]) -> None:
    """Refuse runs whose iterations do not take equally long, and the same run twice.

    Raises:
        ConfigError: runs of different models, devices, kernels or block sizes; names both.
    """
    first = _machine(runs[0])
    for run in runs[1:]:
        for name, value in _machine(run).items():
            if value != first[name]:
                raise ConfigError(
                    f"{runs[0].path} and {run.path} differ in {name} ({first[name]!r} and "
                    f"{value!r}): calibrate each on its own"
                )
    for place, run in enumerate(runs):
        for other in runs[:place]:
            if run.steps_sha256 == other.steps_sha256:
                raise ConfigError(
                    f"{other.path} and {run.path} hold the same iterations, which would count "
                    "twice: give each run once"
                )


def provenance_of(runs: Sequence[StoredRun], iterations: Sequence[int]) -> dict[str, Any]:
    """What ran where; `iterations` is how many of each run were fitted to.

    `runs` holds the hashes by which a validation knows what a calibration saw.
    """
    machine = _machine(runs[0])
    del machine["padding"]  # stands in the file for itself
    return {
        **machine,
        "versions": runs[0].manifest.get("versions"),
        "runs": [
            {
                "command": run.manifest.get("command"),
                "policy": run.manifest["config"].get("policy"),
                "memory": run.manifest["config"].get("resolved", {}).get("memory"),
                "decision_lag": run.manifest.get("decision_lag"),
                "device_uuid": run.execution.get("device_uuid"),
                "device_state": run.manifest.get("device_state"),
                "trace": run.manifest["trace"].get("name"),
                "trace_sha256": run.manifest["trace"].get("sha256"),
                "steps_sha256": run.steps_sha256,
                "finished_at": run.manifest.get("finished_at"),
                "iterations": count,
            }
            for run, count in zip(runs, iterations, strict=True)
        ],
    }


def _machine(run: StoredRun) -> dict[str, Any]:
    """What must be equal for iterations to take equally long."""
    config, execution = run.manifest["config"], run.execution
    on_gpu = str(execution.get("device")).startswith("cuda")
    told = {
        "device": run.manifest.get("device"),
        "model": config.get("model"),
        "tensor_parallel": config.get("tensor_parallel"),
        "threads": None if on_gpu else execution.get("threads"),
        "block_size": config.get("resolved", {}).get("block_size"),
    }
    return {name: told[name] if name in told else execution.get(name) for name in _MACHINE}
