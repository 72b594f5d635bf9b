"""`linear:FILE`: step time linear in the counts of a batch, from a TOML file of coefficients."""

import tomllib
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schedsim.costs.base import PartsAhead, decode_contexts
from schedsim.errors import ConfigError
from schedsim.scheduler.batch import BatchShape

PACKAGED = ("vidur-closed-form",)
"""Coefficient files that come with the package, by their bare names."""


class LinearFile(BaseModel):
    """The TOML file: milliseconds for each unit of work; all but copies are required."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

    base_ms: float = Field(ge=0)
    prefill_token_ms: float = Field(ge=0)
    decode_request_ms: float = Field(ge=0)
    prefill_attention_ms: float = Field(ge=0)
    decode_context_ms: float = Field(ge=0)
    swap_block_ms: float = Field(default=0.0, ge=0)
    copy_block_ms: float = Field(default=0.0, ge=0)


@dataclass(frozen=True, slots=True)
class LinearCost:
    """Milliseconds an iteration, a prefill token, a decode and a unit of attention.

    `prefill_attention_ms` is per Σ chunk·(context + chunk/2), `decode_context_ms` per token of
    decode context, `swap_block_ms` per block copied to or from the host, `copy_block_ms` per block
    moved on the device. Padding of a static batch costs what decodes cost: its counts are added to
    theirs before the multiplication. The terms are added in the order of the fields and the sum is
    turned into seconds at the end, which gives the closed form of the Vidur oracle bit for bit.
    """

    base_ms: float
    prefill_token_ms: float
    decode_request_ms: float
    prefill_attention_ms: float
    decode_context_ms: float
    swap_block_ms: float = 0.0
    copy_block_ms: float = 0.0

    def seconds(self, shape: BatchShape) -> float:
        """Seconds of an iteration."""
        return (
            self.base_ms
            + self.prefill_token_ms * shape.prefill_tokens
            + self.decode_request_ms * (shape.decode_requests + shape.padding_requests)
            + self.prefill_attention_ms * shape.prefill_attention
            + self.decode_context_ms * (shape.decode_context + shape.padding_context)
            + self.swap_block_ms * shape.swapped_blocks
            + self.copy_block_ms * shape.copied_blocks
        ) * 1e-3

    def parts_ahead(self, shape: BatchShape, iterations: int) -> PartsAhead:
        """All of it on the device; what an iteration does not have adds nothing."""
        requests = shape.decode_requests + shape.padding_requests
        context = decode_contexts(shape, iterations)
        fixed = self.base_ms + self.decode_request_ms * requests
        return PartsAhead(0.0, (fixed + self.decode_context_ms * context) * 1e-3, 0.0)

    def describe(self) -> dict[str, Any]:
        """The coefficients."""
        return {"name": "linear", **asdict(self)}


def load_linear(name: str) -> LinearCost:
    """Read coefficients from the TOML file `name`, or from the packaged file of that bare name.

    Raises:
        ConfigError: no such file, no TOML, or a coefficient that is unknown, missing, negative or
            not a finite number; names the file and the key.
    """
    keys = ", ".join(LinearFile.model_fields)
    try:
        if name in PACKAGED:
            packaged = resources.files("schedsim.costs") / f"{name}.toml"
            text = packaged.read_text(encoding="utf-8")
        else:
            text = Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--step-time linear:{name}: cannot read the file: {error}. It must be a TOML file "
            f"with {keys}, or one that comes with schedsim: {', '.join(PACKAGED)}"
        ) from None
    try:
        coefficients = LinearFile(**tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: not a TOML file: {error}") from None
    except ValidationError as error:
        problems = "; ".join(_problem(problem) for problem in error.errors())
        raise ConfigError(f"{name}: {problems}. It takes exactly {keys}") from None
    return LinearCost(**coefficients.model_dump())


def _problem(problem: Any) -> str:
    key = ".".join(map(str, problem["loc"]))
    if problem["type"] == "missing":
        return f"{key} is missing"
    if problem["type"] == "extra_forbidden":
        return f"{key} is not a coefficient"
    return f"{key} = {problem['input']!r}: {problem['msg']}"
