"""`fitted:FILE`: step time fitted to measured iterations, from a file of `schedsim calibrate`."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schedsim.costs.base import PartsAhead, StepParts, decode_contexts
from schedsim.errors import ConfigError
from schedsim.results.step_log import StepLog
from schedsim.scheduler.batch import BatchShape

FILE_VERSION: Literal[1] = 1

Range = tuple[float, float]


class Coefficients(BaseModel):
    """Seconds an iteration (`base`) and for each unit of a count of its batch, none negative.

    Counts are those of `BatchShape`; `decode_requests` and `decode_context` include the padding of
    a static batch, which costs what decodes cost.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    base: float = Field(default=0.0, ge=0)
    prefill_requests: float = Field(default=0.0, ge=0)
    prefill_tokens: float = Field(default=0.0, ge=0)
    prefill_attention: float = Field(default=0.0, ge=0)
    decode_requests: float = Field(default=0.0, ge=0)
    decode_context: float = Field(default=0.0, ge=0)
    sampled: float = Field(default=0.0, ge=0)
    swapped_blocks: float = Field(default=0.0, ge=0)
    copied_blocks: float = Field(default=0.0, ge=0)


TERMS = tuple(Coefficients.model_fields)
COUNTS = TERMS[1:]
"""The counts of a batch that cost time, in the order in which they are added up."""


class Parts(BaseModel):
    """The coefficients of each of `StepParts`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    host: Coefficients = Coefficients()
    device: Coefficients = Coefficients()
    gap: Coefficients = Coefficients()


class FittedFile(BaseModel):
    """The JSON file: coefficients, what they were fitted to, and how well they fit.

    `ranges` holds least and most of each count in the runs, `provenance` says what ran where,
    `residuals` how far the fit is off; only `parts` changes a step time.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["schedsim step time"] = "schedsim step time"
    file_version: Literal[1] = FILE_VERSION
    parts: Parts
    ranges: dict[str, Range]
    steps: int = Field(ge=0)
    provenance: dict[str, Any]
    residuals: dict[str, Any]
    warnings: list[str]


@dataclass(frozen=True, slots=True)
class FittedCost:
    """A `PartedCost`: each part a sum of terms, added in the order of `TERMS`."""

    path: str
    file: FittedFile = field(repr=False)
    total: Coefficients
    """Per term, host + device + gap."""

    def seconds(self, shape: BatchShape) -> float:
        """Seconds from a decision to the next, if work is there."""
        return _seconds(self.total, shape)

    def parts(self, shape: BatchShape) -> StepParts:
        """The same, part by part."""
        parts = self.file.parts
        return StepParts(
            _seconds(parts.host, shape), _seconds(parts.device, shape), _seconds(parts.gap, shape)
        )

    def parts_ahead(self, shape: BatchShape, iterations: int) -> PartsAhead:
        """The same of consecutive iterations that only decode."""
        context = decode_contexts(shape, iterations) + shape.padding_context
        host, device, gap = (
            _before_context(part, shape)
            + part.decode_context * context
            + part.sampled * shape.sampled
            for part in (self.file.parts.host, self.file.parts.device, self.file.parts.gap)
        )
        return PartsAhead(host, device, gap)

    def describe(self) -> dict[str, Any]:
        """The whole file."""
        return {"name": "fitted", "file": self.path, **self.file.model_dump(mode="json")}

    @property
    def model(self) -> str | None:
        """The model whose iterations were measured."""
        return self.file.provenance.get("model")

    @property
    def block_size(self) -> int | None:
        """The tokens in a KV block of the engine that was measured; None where no file says."""
        return self.file.provenance.get("block_size")

    def beyond(self, steps: StepLog) -> list[str]:
        """A note, if counts of a run exceed all that the coefficients were fitted to."""
        found = []
        for name, column in counts_of(steps.column).items():
            most, seen = float(column.max(initial=0)), self.file.ranges.get(name, (0.0, 0.0))[1]
            if most > seen:
                found.append(f"{name} up to {most:,.0f} (fitted up to {seen:,.0f})")
        if not found:
            return []
        return [f"step times of {self.path} go beyond what was measured: {', '.join(found)}"]


def _seconds(part: Coefficients, shape: BatchShape) -> float:
    return (
        _before_context(part, shape)
        + part.decode_context * (shape.decode_context + shape.padding_context)
        + part.sampled * shape.sampled
        + part.swapped_blocks * shape.swapped_blocks
        + part.copied_blocks * shape.copied_blocks
    )


def _before_context(part: Coefficients, shape: BatchShape) -> float:
    """The terms before that of the decode context, in the order of `TERMS`."""
    return (
        part.base
        + part.prefill_requests * shape.prefill_requests
        + part.prefill_tokens * shape.prefill_tokens
        + part.prefill_attention * shape.prefill_attention
        + part.decode_requests * (shape.decode_requests + shape.padding_requests)
    )


def counts_of(column: Callable[[str], npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
    """Each of `COUNTS` of every iteration; `column` gives a column of the steps by name."""
    decodes, padding = column("decode_requests"), column("padding_requests")
    context = column("context_tokens") + decodes + column("padding_context")
    own = {"decode_requests": decodes + padding, "decode_context": context}
    return {name: own[name] if name in own else column(name) for name in COUNTS}


def make_fitted(file: FittedFile, path: str) -> FittedCost:
    """The step-time model of a file's content."""
    host, device, gap = file.parts.host, file.parts.device, file.parts.gap
    total = {
        name: getattr(host, name) + getattr(device, name) + getattr(gap, name) for name in TERMS
    }
    return FittedCost(path, file, Coefficients(**total))


def load_fitted(path: str) -> FittedCost:
    """Read the JSON file `path`.

    Raises:
        ConfigError: no such file, no JSON, another kind or version of file, or a coefficient that
            is unknown, negative or not a finite number; names the file and the field.
    """
    where = f"--step-time fitted:{path}"
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{where}: cannot read the file: {error}; `schedsim calibrate` writes one"
        ) from None
    try:
        file = FittedFile.model_validate_json(text)
    except ValidationError as error:
        problems = error.errors()
        told = "; ".join(f"{_place(problem)}{problem['msg']}" for problem in problems[:3])
        more = f"; and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ConfigError(
            f"{where}: not a file of this version of `schedsim calibrate`: {told}{more}"
        ) from None
    return make_fitted(file, path)


def _place(problem: Any) -> str:
    place = ".".join(map(str, problem["loc"]))
    return f"{place}: " if place else ""
