"""`Index`: what of a protocol is measured; one small file that is whole at any moment."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schedsim.errors import ResultError
from schedsim.results.directory import write_whole

INDEX, RUNS = "index.json", "runs"

Entry = TypeVar("Entry", "CapacityEntry", "CellEntry")


class CapacityEntry(BaseModel):
    """Runs of an overloaded engine, and the requests per second that it did in each of them.

    `offered` is the load that they were given, in requests per second.
    """

    model_config = ConfigDict(extra="forbid")

    offered: float
    requests_per_s: list[float] = Field(default_factory=list)
    runs: list[str] = Field(default_factory=list)

    @property
    def mean(self) -> float:
        """The capacity: the mean of the runs, of which there is one at least."""
        return sum(self.requests_per_s) / len(self.requests_per_s)


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
        ResultError: one is damaged, two hold the same cell, or they are of different devices.
    """
    whole = Index()
    for folder in folders:
        index = load_index(folder)
        if None not in (whole.device, index.device) and index.device != whole.device:
            raise ResultError(f"{folder} holds runs of {index.device}, not of {whole.device}")
        whole.device = whole.device or index.device
        _take_over(whole.capacities, index.capacities, folder)
        _take_over(whole.cells, index.cells, folder)
    return whole


def _take_over(ours: dict[str, Entry], others: dict[str, Entry], folder: Path) -> None:
    twice = sorted(ours.keys() & others.keys())
    if twice:
        raise ResultError(f"{folder} holds {twice[0]!r}, which another folder holds, too")
    for name, entry in others.items():
        runs = [str((folder / run).resolve()) for run in entry.runs]
        ours[name] = entry.model_copy(update={"runs": runs})
