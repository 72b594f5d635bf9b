"""`GPUSpec`: the peak figures of a GPU, by name."""

import tomllib
from importlib import resources
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from schedsim.specs import unknown_name


class GPUSpec(BaseModel):
    """Peak figures of one GPU: dense bf16 arithmetic, memory, links; see gpus.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    bf16_tflops: float = Field(gt=0)
    memory_gib: float = Field(gt=0)
    memory_gb_per_s: float = Field(gt=0)
    link_gb_per_s: float = Field(gt=0)
    host_gb_per_s: float = Field(gt=0)

    @property
    def memory_bytes(self) -> int:
        """Bytes of device memory."""
        return int(self.memory_gib * 2**30)


def load_gpu(name: str) -> GPUSpec:
    """The GPU called `name`.

    Raises:
        ConfigError: an unknown name; lists the known ones.
    """
    known = _shipped()
    if name not in known:
        raise unknown_name("GPU", name, known)
    return GPUSpec(name=name, **known[name])


def list_gpus() -> list[tuple[str, str]]:
    """Every shipped GPU with a line that describes it."""
    rows = []
    for name in _shipped():
        gpu = load_gpu(name)
        rows.append(
            (
                name,
                f"{gpu.memory_gib:g} GiB at {gpu.memory_gb_per_s:g} GB/s, "
                f"{gpu.bf16_tflops:g} TFLOP/s bf16, link {gpu.link_gb_per_s:g} GB/s",
            )
        )
    return rows


def _shipped() -> dict[str, dict[str, Any]]:
    text = (resources.files("schedsim.costs") / "gpus.toml").read_text(encoding="utf-8")
    return tomllib.loads(text)
