"""Compiles kernels for a GPU that is not there: wrappers run on CPU tensors, launches only compile.

A process of its own, because kernels imported for the interpreter cannot be compiled.
"""

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import triton
from triton.backends.compiler import GPUTarget
from triton.runtime import JITFunction, driver

SHARED_LIMITS = {80: 163 * 1024, 90: 227 * 1024}
"""Bytes of shared memory that a program may have, by compute capability."""


class Usage(NamedTuple):
    """What a compiled kernel takes."""

    kernel: str
    capability: int
    registers: int
    stack: int
    shared: int
    warps: int
    constants: str


class _NoDevice:
    """Stands where Triton looks for the current GPU; device ids are capabilities."""

    def __init__(self, capability: int) -> None:
        self.capability = capability

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def get_current_device(self) -> int:
        return self.capability

    def get_current_stream(self, device: int) -> int:
        return 0


@contextmanager
def compiling(capability: int) -> Iterator[list[Usage]]:
    """Within, a launch compiles for `capability` and adds to the list instead of running."""
    found: list[Usage] = []
    run: Callable[..., Any] = JITFunction.run

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **options: Any) -> Any:
        compiled = run(self, *args, grid=grid, warmup=True, **options)
        constants = {key: value for key, value in options.items() if key.isupper()}
        found.append(_usage(compiled, capability, str(constants)))
        return compiled

    previous = triton.knobs.runtime.interpret
    JITFunction.run = compile_only
    driver.set_active(_NoDevice(capability))
    triton.knobs.runtime.interpret = True  # the wrappers then take tensors of a CPU
    try:
        yield found
    finally:
        JITFunction.run = run
        triton.knobs.runtime.interpret = previous


def _usage(compiled: Any, capability: int, constants: str) -> Usage:
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        listing = subprocess.run(
            [tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True
        ).stdout
    numbers = dict(re.findall(r"(REG|STACK):(\d+)", listing))
    return Usage(
        kernel=compiled.metadata.name,
        capability=capability,
        registers=int(numbers["REG"]),
        stack=int(numbers["STACK"]),
        shared=compiled.metadata.shared,
        warps=compiled.metadata.num_warps,
        constants=constants,
    )
