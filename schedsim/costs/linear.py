"""`linear:FILE`: step time linear in the counts of a batch, from a TOML file of coefficients."""

import tomllib
from dataclasses import asdict, dataclass
from importlib import resources
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from schedsim.errors import ConfigError
from schedsim.scheduler.batch import BatchShape


class LinearFile(BaseModel):
    """The TOML file: milliseconds for each unit of work."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    base_ms: float = Field(ge=0)
    prefill_token_ms: float = Field(ge=0)
    decode_request_ms: float = Field(ge=0)
    prefill_attention_ms: float = Field(ge=0)
    decode_context_ms: float = Field(ge=0)


@dataclass(frozen=True, slots=True)
class LinearCost:
    """Milliseconds an iteration, a prefill token, a decode and a unit of attention.

    `prefill_attention_ms` is per Σ chunk·(context + chunk/2), `decode_context_ms` per token of
    decode context. Padding of a static batch costs what decodes cost. The terms are added in the
    order of the fields and the sum is turned into seconds at the end, which gives the closed form
    of the Vidur oracle bit for bit.
    """

    base_ms: float
    prefill_token_ms: float
    decode_request_ms: float
    prefill_attention_ms: float
    decode_context_ms: float

    def seconds(self, shape: BatchShape) -> float:
        """Seconds of an iteration."""
        return (
            self.base_ms
            + self.prefill_token_ms * shape.prefill_tokens
            + self.decode_request_ms * (shape.decode_requests + shape.padding_requests)
            + self.prefill_attention_ms * shape.prefill_attention
            + self.decode_context_ms * (shape.decode_context + shape.padding_context)
        ) * 1e-3

    def describe(self) -> dict[str, Any]:
        """The coefficients."""
        return {"name": "linear", **asdict(self)}


def load_linear(name: str) -> LinearCost:
    """Read coefficients from the TOML file `name`, or from the shipped file of that bare name.

    Raises:
        ConfigError: no such file, no TOML, an unknown, missing or bad coefficient.
    """
    shipped = resources.files("schedsim.costs") / f"{name}.toml"
    path = Path(name)
    try:
        if path.suffix != ".toml" and path.name == name and shipped.is_file():
            text = shipped.read_text(encoding="utf-8")
        else:
            text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"--step-time linear:{name}: cannot read the file: {error}; it must be a TOML file "
            f"with {', '.join(LinearFile.model_fields)}"
        ) from None
    try:
        values = LinearFile(**tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: not a TOML file: {error}") from None
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}" for problem in error.errors()
        )
        raise ConfigError(
            f"{name}: {problems}. It takes exactly {', '.join(LinearFile.model_fields)}"
        ) from None
    return LinearCost(**values.model_dump())
