"""`GPUSpec`: the peak figures of a GPU, by name."""

from pydantic import BaseModel, ConfigDict, Field

from schedsim.costs.packaged import read_packaged
from schedsim.specs import unknown_name


class GPUSpec(BaseModel):
    """Peak figures of one GPU: dense bf16 arithmetic, memory, links in one direction.

    `link_gb_per_s` goes to the other GPUs of the node, `host_gb_per_s` to the host's memory; gb is
    10⁹ bytes. Sources: gpus.toml.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    name: str
    bf16_tflops: float = Field(gt=0)
    memory_mib: int = Field(gt=0)
    memory_gb_per_s: float = Field(gt=0)
    link_gb_per_s: float = Field(gt=0)
    host_gb_per_s: float = Field(gt=0)

    @property
    def memory_bytes(self) -> int:
        """Bytes of device memory."""
        return self.memory_mib * 2**20


def load_gpu(name: str) -> GPUSpec:
    """The GPU called `name`.

    Raises:
        ConfigError: an unknown name; lists the known ones.
    """
    known = read_packaged("gpus.toml")
    if name not in known:
        raise unknown_name("GPU", name, known)
    return GPUSpec(name=name, **known[name])


def list_gpus() -> list[tuple[str, str]]:
    """The name of every packaged GPU with a line that describes it."""
    rows = []
    for name, figures in read_packaged("gpus.toml").items():
        gpu = GPUSpec(name=name, **figures)
        rows.append(
            (
                name,
                f"{gpu.memory_bytes / 2**30:.1f} GiB at {gpu.memory_gb_per_s:g} GB/s, "
                f"{gpu.bf16_tflops:g} TFLOP/s bf16, link {gpu.link_gb_per_s:g} GB/s",
            )
        )
    return rows
