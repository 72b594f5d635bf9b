"""Where a calibration comes from, and which runs may go into one."""

from collections.abc import Mapping, Sequence
from typing import Any

from schedsim.errors import ConfigError
from schedsim.experiments.iterations import padding_of
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
    first = machine_of(runs[0])
    for run in runs[1:]:
        for name, value in machine_of(run).items():
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


def check_adaptable(fitted_to: Mapping[str, Any], found: Mapping[str, Any], where: object) -> None:
    """Refuse to adapt a file to what it is not of, and one that is adapted already.

    `fitted_to` is its provenance and, where known, padding; `found` are entries of `machine_of`, as
    they are in `where`. What the file does not tell does not count. UUID, clocks and versions may
    differ, as between the runs of one fit: the factor is of all that makes a device faster or
    slower.

    Raises:
        ConfigError: names what differs.
    """
    if "adapted" in fitted_to:  # its factor would be of an unknown device, not of their mean
        raise ConfigError(
            "the file to adapt is adapted to a device already: give the file that it was made from"
        )
    for name, value in found.items():
        if name in fitted_to and value != fitted_to[name]:
            raise ConfigError(
                f"{where} and the file to adapt differ in {name} ({value!r} and "
                f"{fitted_to[name]!r}): an adapted file differs in the device's speed alone; "
                "calibrate anew, without --adapt"
            )


def provenance_of(runs: Sequence[StoredRun], iterations: Sequence[int]) -> dict[str, Any]:
    """What ran where; `iterations` is how many of each run were fitted to.

    `runs` holds the hashes by which a validation knows what a calibration saw.
    """
    machine = machine_of(runs[0])
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
                "device_uuid": run.device_uuid,
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


def machine_of(run: StoredRun) -> dict[str, Any]:
    """What must be equal for iterations to take equally long, but for the device's own speed."""
    config, execution = run.manifest["config"], run.execution
    on_gpu = str(execution.get("device")).startswith("cuda")
    told = {
        "device": run.manifest.get("device"),
        "model": config.get("model"),
        "tensor_parallel": config.get("tensor_parallel"),
        "threads": None if on_gpu else execution.get("threads"),
        "block_size": config.get("resolved", {}).get("block_size"),
        "padding": padding_of(run).model_dump(),
    }
    return {name: told[name] if name in told else execution.get(name) for name in _MACHINE}
