"""`Protocol`: the file that fixes what is measured, checked before anything runs."""

import tomllib
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schedsim.config import (
    SIMULATED_ONLY,
    ExecutionSettings,
    RunSettings,
    make_execution_settings,
    make_settings,
)
from schedsim.errors import ConfigError
from schedsim.policies.loading import make_policy
from schedsim.specs import unknown_name

Scalar = bool | int | float | str

OWN = {"policy", "limit", "rate_scale", "arrivals", "concurrency"}
"""The `RunSettings` that cells and their loads set, so that `engine` cannot."""


class _Table(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(_Table):
    """Where a trace comes from: a `file` below the folder of traces, or a generated `preset`.

    `window` cuts a stretch (s) out of it, `clip` prompts so that they fit a context of so many
    tokens; `spread_ticks` and `tenants` are as for `schedsim run` and `trace generate`.
    """

    file: str | None = None
    preset: str | None = None
    requests: int = Field(5000, ge=2)
    seed: int = Field(0, ge=0)
    tenants: str | None = None
    window: tuple[float, float] | None = None
    clip: int | None = Field(None, ge=2)
    spread_ticks: bool = False


class PlannedCell(_Table):
    """A policy on a trace at `load`, a share of the capacity that was measured of it before.

    `blocks` overrides the engine's. `capacity_of` names another cell whose capacity the load is a
    share of instead. Cells with one `choice` serve the same load, so that policies compare.
    """

    name: str = Field(pattern=r"^[\w.-]+$")
    trace: str
    policy: str
    load: float = Field(gt=0, le=2)
    kind: Literal["light", "near", "pressure", "choice"]
    repeats: int | None = Field(None, ge=1)
    blocks: int | None = Field(None, ge=1)
    capacity_of: str | None = None
    choice: str | None = None


class Protocol(_Table):
    """All cells, and what they have in common.

    Requests of a cell come for `seconds`. Capacities are measured `capacity_repeats` times each,
    with as many requests at once as saturate the engine and keep it busy for `capacity_seconds` in
    a simulation with `sizing`. `overhead_s` is what a run takes beside its requests. `engine` holds
    `RunSettings`, `device` the `ExecutionSettings`. Simulated figures are means of `draws`
    simulations that scatter, or of one that does not if that is 0.
    """

    purpose: Literal["development", "test"]
    seconds: float = Field(gt=0)
    repeats: int = Field(2, ge=1)
    capacity_seconds: float = Field(gt=0)
    capacity_repeats: int = Field(2, ge=1)
    overhead_s: float = Field(20.0, ge=0)
    sizing: str = "roofline"
    draws: int = Field(0, ge=0)
    engine: dict[str, Scalar] = Field(default_factory=dict)
    device: dict[str, Scalar] = Field(default_factory=dict)
    traces: dict[str, Source]
    cells: list[PlannedCell] = Field(min_length=1)

    def settings(self, cell: PlannedCell) -> RunSettings:
        """The settings of a cell but for its load.

        Raises:
            ConfigError: one is wrong.
        """
        given: dict[str, Any] = {**self.engine, "policy": cell.policy}
        if cell.blocks is not None:
            given["blocks"] = cell.blocks
        return make_settings(**{"model": "tiny", **given})

    def execution(self) -> ExecutionSettings:
        """The settings of the device.

        Raises:
            ConfigError: one is wrong.
        """
        return make_execution_settings(**self.device)

    def cell(self, name: str) -> PlannedCell:
        """The cell of this name."""
        return next(cell for cell in self.cells if cell.name == name)

    def repeats_of(self, cell: PlannedCell) -> int:
        """How often it is measured."""
        return self.repeats if cell.repeats is None else cell.repeats

    def capacity_key(self, cell: PlannedCell) -> str:
        """What names the capacity that the load of a cell is a share of."""
        owner = cell if cell.capacity_of is None else self.cell(cell.capacity_of)
        blocks = "" if owner.blocks is None else f",blocks={owner.blocks}"
        return f"{owner.trace},{owner.policy}{blocks}"

    def capacities(self) -> dict[str, PlannedCell]:
        """A cell for each capacity, whose settings are those of that capacity."""
        owners: dict[str, PlannedCell] = {}
        for cell in self.cells:
            owners.setdefault(self.capacity_key(cell), self.capacity_owner(cell))
        return owners

    def capacity_owner(self, cell: PlannedCell) -> PlannedCell:
        """A cell whose settings are those of that capacity."""
        return cell if cell.capacity_of is None else self.cell(cell.capacity_of)


class Share(NamedTuple):
    """The `number`-th, counted from 1, of so many `shares` of a protocol's runs.

    Repeats are dealt out in turn, beginning with another share for each cell, so that every share
    measures every cell if there are repeats enough, and all have about as many runs.
    """

    number: int = 1
    shares: int = 1

    def of(self, repeats: int, place: int) -> int:
        """How many of the repeats of the cell, or capacity, at this place of the order it has."""
        return sum((run + place) % self.shares == self.number - 1 for run in range(repeats))


WHOLE = Share()
"""Everything."""


def read_protocol(path: Path) -> Protocol:
    """The protocol in a TOML file.

    Raises:
        ConfigError, PolicyError: it cannot be read, or something in it is unknown or wrong.
    """
    if not path.is_file():
        raise ConfigError(f"{path}: no such file; validation/cells.toml is one")
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
        protocol = Protocol.model_validate(content)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path} is not TOML: {error}") from None
    except ValidationError as error:
        told = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'the file'}: {problem['msg']}"
            for problem in error.errors()
        )
        raise ConfigError(f"{path}: {told}") from None
    try:
        _check(protocol)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    return protocol


def _check(protocol: Protocol) -> None:
    for name in protocol.engine:
        if name in OWN | SIMULATED_ONLY:
            raise ConfigError(f"engine: {name} is not for all cells to set")
    for name, source in protocol.traces.items():
        if (source.file is None) == (source.preset is None):
            raise ConfigError(f"traces.{name}: give either a file or a preset")
    names = [cell.name for cell in protocol.cells]
    protocol.execution()
    for place, cell in enumerate(protocol.cells):
        if cell.name in names[:place]:
            raise ConfigError(f"cell {cell.name!r} is there twice")
        if cell.trace not in protocol.traces:
            raise unknown_name("trace", cell.trace, protocol.traces)
        if cell.capacity_of is not None:
            if cell.capacity_of not in names:
                raise unknown_name("cell", cell.capacity_of, names)
            if protocol.cell(cell.capacity_of).capacity_of is not None:
                raise ConfigError(
                    f"cell {cell.name!r}: {cell.capacity_of!r} has no capacity of its own either"
                )
        protocol.settings(cell)
        make_policy(cell.policy)
