"""`recorded:RUN_DIR`: the moments of another run, simulated or measured, iteration by iteration."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from schedsim.errors import ConfigError, ResultError
from schedsim.results.stored_run import load_manifest, load_table

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

_COLUMNS = (
    "decided_at",
    "start",
    "end",
    "idle_looks",
    "prefill_tokens",
    "decode_requests",
    "preempted",
)


@dataclass(frozen=True, slots=True, eq=False)
class RecordedTimes:
    """When each iteration of a run was decided, began and ended, in absolute seconds of that run.

    `idle_looks[idle_offsets[i]:idle_offsets[i + 1]]` are the moments before iteration i at which
    its engine looked and ran nothing. `prefill_tokens`, `decode_requests` and `preempted` say what
    each iteration was. `complete` is false for a run that was stopped. `polled` says that its
    requests were handed over when the engine looked, as on a device. `manifest` is the run's.
    """

    name: str
    decided_at: Floats
    start: Floats
    end: Floats
    idle_looks: Floats
    idle_offsets: Ints
    prefill_tokens: Ints
    decode_requests: Ints
    preempted: Ints
    complete: bool
    polled: bool
    manifest: dict[str, Any] = field(repr=False)

    def __len__(self) -> int:
        return len(self.end)

    def describe(self) -> dict[str, Any]:
        """The run that the times are from."""
        return {"name": "recorded", "run": self.name, "iterations": len(self)}


def load_recorded(directory: str) -> RecordedTimes:
    """The times of the run whose results are in `directory`.

    Raises:
        ConfigError: no run is there, it is of another version, or its steps are missing, damaged
            or of an older form; names the file.
    """
    folder = Path(directory)
    try:
        manifest = load_manifest(folder)
        table = load_table(folder / "steps.parquet")
    except ResultError as error:
        raise ConfigError(f"--step-time recorded:{directory}: {error}") from None
    missing = set(_COLUMNS) - set(table.column_names)
    if missing:
        raise ConfigError(
            f"--step-time recorded:{directory}: steps.parquet lacks {', '.join(sorted(missing))}; "
            "run it again with this version of schedsim"
        )
    columns = {name: table.column(name).combine_chunks() for name in _COLUMNS}
    looks, ends = columns["idle_looks"], columns["end"]

    def numbers(name: str) -> npt.NDArray[Any]:
        values: npt.NDArray[Any] = columns[name].to_numpy(zero_copy_only=False)
        return values

    return RecordedTimes(
        name=directory,
        decided_at=numbers("decided_at"),
        start=numbers("start"),
        end=ends.flatten().to_numpy(zero_copy_only=False),
        idle_looks=looks.flatten().to_numpy(zero_copy_only=False),
        idle_offsets=looks.offsets.to_numpy().astype(np.int64),
        prefill_tokens=numbers("prefill_tokens"),
        decode_requests=numbers("decode_requests"),
        preempted=numbers("preempted"),
        complete=bool(manifest.get("complete")),
        manifest=manifest,
        polled="execution" in manifest,
    )
