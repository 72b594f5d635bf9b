"""The device that an engine runs on: found, named, asked for its free memory."""

import platform
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from schedsim.errors import ConfigError
from schedsim.specs import unknown_name

DTYPES = {
    "float32": torch.float32,
    "float64": torch.float64,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

CPU_CACHE_BYTES = 2**30
"""What a KV cache takes on a CPU where nobody says how many blocks it has."""

KEPT_BYTES = 5 * 2**29
"""What is left of a GPU's memory for CUDA graphs, libraries and compiled kernels."""

_MEMORY_PHRASES = ("out of memory", "allocate memory", "not enough memory", "ALLOC_FAILED")


def open_device(name: str | None) -> torch.device:
    """The device called `cpu`, `cuda` or `cuda:N`; None takes the GPU if there is one.

    Raises:
        ConfigError: another name, or a GPU that torch does not see.
    """
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if name is None:
        name = "cuda" if count else "cpu"
    kind, _, index = name.partition(":")
    if kind == "gpu":  # by its letters nearer to cpu
        meant = name.replace(kind, "cuda")
        raise ConfigError(
            f"unknown device {name!r}. Did you mean {meant!r}? Known: cpu, cuda, cuda:N."
        )
    if name == "cpu":
        return torch.device("cpu")
    if kind != "cuda" or (name != "cuda" and not index.isdecimal()):
        raise unknown_name("device", name, ("cpu", "cuda", "cuda:N"))
    if int(index or 0) >= count:
        seen = f"torch sees {count} CUDA devices" if count else "torch sees no CUDA device"
        raise ConfigError(f"--device {name}: {seen}; `schedsim doctor` says more, cpu always works")
    device = torch.device("cuda", int(index or 0))
    torch.cuda.set_device(device)
    return device


def choose_dtype(name: str | None, device: torch.device) -> torch.dtype:
    """The type called `name`; None takes float32 on a CPU and bfloat16 on a GPU.

    Raises:
        ConfigError: an unknown name.
    """
    if name is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    if name not in DTYPES:
        raise unknown_name("dtype", name, DTYPES)
    return DTYPES[name]


def device_name(device: torch.device) -> str:
    """What the hardware calls itself."""
    if device.type == "cuda":
        return str(torch.cuda.get_device_name(device))
    cpuinfo = Path("/proc/cpuinfo")
    for line in cpuinfo.read_text().splitlines() if cpuinfo.is_file() else ():
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            return value.strip()
    return platform.processor() or platform.machine()


def device_uuid(device: torch.device) -> str | None:
    """What tells a GPU from others of its kind, as NVML writes it; None for a CPU."""
    if device.type != "cuda":
        return None
    uuid = str(torch.cuda.get_device_properties(device).uuid)
    return uuid if uuid.startswith("GPU-") else f"GPU-{uuid}"


def free_bytes(device: torch.device) -> int:
    """Bytes of memory that nobody has; on a CPU what a KV cache may take."""
    if device.type == "cpu":
        return CPU_CACHE_BYTES
    empty_cache(device)  # what nobody has any more counts as free
    return int(torch.cuda.mem_get_info(device)[0])


def empty_cache(device: torch.device) -> None:
    """Give back to a GPU what torch holds for later."""
    if device.type == "cuda":
        torch.cuda.empty_cache()


def room_for_cache(device: torch.device, free: int, workspace: int) -> tuple[int, str]:
    """Bytes that a KV cache may take of the `free` ones, and why.

    `workspace` are those that a forward pass needs.
    """
    if device.type == "cpu":
        return free, f"{free / 2**30:g} GiB of memory"
    kept = workspace + KEPT_BYTES
    why = (
        f"what {kept / 2**30:.1f} GiB for a forward pass and its graphs leave of the "
        f"{free / 2**30:.1f} GiB beside the weights"
    )
    return max(0, free - kept), why


def to_device(values: Any, device: torch.device | str, dtype: torch.dtype | None = None) -> Tensor:
    """A tensor of `values` on `device`; the host does not wait for the copy."""
    host = torch.as_tensor(values, dtype=dtype)
    if torch.device(device).type == "cuda":
        host = host.pin_memory()  # or the copy would wait for the device
    return host.to(device, non_blocking=True)


def is_out_of_memory(error: Exception) -> bool:
    """Whether torch or numpy says that memory is short; on a CPU torch has no class for it."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return any(phrase in str(error) for phrase in _MEMORY_PHRASES)
