"""`Index`: what of a protocol is measured; one small file that is whole at any moment."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schedsim.errors import ResultError
from schedsim.results.directory import write_whole

INDEX, RUNS = "index.json", "runs"


class CapacityEntry(BaseModel):
    """Runs of an engine that had all of so many requests at once, and the requests per second that
    it did in each of them."""

    model_config = ConfigDict(extra="forbid")

    requests: int
    requests_per_s: list[float] = Field(default_factory=list)
    runs: list[str] = Field(default_factory=list)


class CellEntry(BaseModel):
    """The runs of a cell, and the rate (requests/s) at which they were all asked for."""

    model_config = ConfigDict(extra="forbid")

    rate: float
    runs: list[str] = Field(default_factory=list)


class Index(BaseModel):
    """Capacities by key and cells by name; runs are folders below that of the index."""

    model_config = ConfigDict(extra="forbid")

    device: str | None = None
    capacities: dict[str, CapacityEntry] = Field(default_factory=dict)
    cells: dict[str, CellEntry] = Field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Write it into the folder of the runs.

        Raises:
            OutputError: it cannot be written.
        """
        write_whole(folder / INDEX, self.model_dump_json(indent=2) + "\n")


def load_index(folder: Path) -> Index:
    """The index in a folder; an empty one where there is none.

    Raises:
        ResultError: it is damaged.
    """
    path = folder / INDEX
    if not path.is_file():
        return Index()
    try:
        content: Any = path.read_text(encoding="utf-8")
        return Index.model_validate_json(content)
    except (OSError, ValidationError) as error:
        reason = str(error).splitlines()[0]
        raise ResultError(f"{path} cannot be read: {reason}; put back a copy of it") from None


def load_indices(folders: Sequence[Path]) -> Index:
    """What several folders hold together, with the paths of the runs in full.

    Raises:
        ResultError: one is damaged, one is there twice, or they are of different devices or loads.
    """
    whole = Index()
    for place, folder in enumerate(folders):
        if folder.resolve() in [other.resolve() for other in folders[:place]]:
            raise ResultError(f"{folder} is there twice, and its runs would count twice")
        index = load_index(folder)
        if None not in (whole.device, index.device) and index.device != whole.device:
            raise ResultError(f"{folder} holds runs of {index.device}, not of {whole.device}")
        whole.device = whole.device or index.device
        for key, capacity in index.capacities.items():
            ours = whole.capacities.setdefault(key, CapacityEntry(requests=capacity.requests))
            _check_load(
                f"the capacity of {key}", f"{ours.requests:,}", f"{capacity.requests:,}", folder
            )
            ours.requests_per_s += capacity.requests_per_s
            ours.runs += _in_full(capacity.runs, folder)
        for name, cell in index.cells.items():
            joined = whole.cells.setdefault(name, CellEntry(rate=cell.rate))
            _check_load(name, f"{joined.rate:.6g} a second", f"{cell.rate:.6g} a second", folder)
            joined.runs += _in_full(cell.runs, folder)
    return whole


def _in_full(runs: Sequence[str], folder: Path) -> list[str]:
    return [str((folder / run).resolve()) for run in runs]


def _check_load(what: str, ours: str, other: str, folder: Path) -> None:
    if ours != other:
        raise ResultError(
            f"{folder} holds runs of {what} with {other} requests, another folder with {ours}: "
            "they are no repeats; measure it anew in one of them"
        )
