"""`design.json`: what a run of designed batches keeps beside its steps."""

import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from schedsim.errors import ResultError

DESIGN = "design.json"

DESIGNED = "designed batches"
"""The name of the policy of such a run."""


class DesignFile(BaseModel):
    """Which iterations of the run are measurements, and how much of the design was run.

    `left_out` numbers the iterations that only bring the engine from one batch to the next. A pass
    is the whole design once, in an order of its own; `batches` counts what was measured, `planned`
    what one pass has, `skipped` the batches for which the memory had no room.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    seed: int
    passes: int = Field(ge=0)
    batches: int = Field(ge=0)
    planned: int = Field(ge=0)
    skipped: int = Field(ge=0)
    left_out: list[int]


def read_design(run: Path) -> DesignFile | None:
    """The design of the run in this directory; None where it is not one of designed batches.

    Raises:
        ResultError: the file is damaged.
    """
    path = run / DESIGN
    if not path.is_file():
        return None
    try:
        return DesignFile.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError) as error:  # pydantic's are ValueErrors
        line = str(error).splitlines()[0]
        raise ResultError(f"{path} cannot be read: {line}; calibrate anew") from None


def is_counted(run: Path, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Which rows of a run's steps a calibration counts: all but those that its design leaves out.

    Raises:
        ResultError: as `read_design`.
    """
    design = read_design(run)
    if design is None:
        return np.ones(len(rows), dtype=np.bool_)
    return ~np.isin(rows, design.left_out)
