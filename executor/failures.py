"""What goes wrong on a device, told so that the user knows when and what to do."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import extract_tb

import torch

from schedsim.errors import ExecutionError
from schedsim.executor.device import is_out_of_memory
from schedsim.request import Request
from schedsim.scheduler import Batch


@contextmanager
def told_if_it_fails(
    device: torch.device, batch: Batch | None, *, keeps: object = None
) -> Iterator[None]:
    """What torch, the driver or numpy raises becomes an ExecutionError that says when.

    `batch` is the one that runs; None: before the first. `keeps` is never freed if a GPU fails:
    the destructors of graphs and of pinned memory would ask the GPU and end the process.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        problem = str(error).strip().partition("\n")[0] or type(error).__name__
        where = "before the first iteration"
        if batch is not None:
            tokens = batch.prefill_tokens + batch.decode_requests
            requests = batch.prefill_requests + batch.decode_requests
            where = (
                f"in iteration {batch.iteration}, which runs {tokens} tokens of {requests} requests"
            )
        if is_out_of_memory(error):
            raise ExecutionError(
                f"out of memory on {device} {where}; take fewer --blocks, a smaller "
                f"--token-budget or fewer --max-seqs ({problem})"
            ) from error
        line = extract_tb(error.__traceback__)[-1]
        if "CUDA" in problem:
            ctypes.pythonapi.Py_IncRef(ctypes.py_object(keeps))
        # A GPU tells of a failure at the next call, wherever that is.
        hint = "; CUDA_LAUNCH_BLOCKING=1 shows where" if "CUDA" in problem else ""
        raise ExecutionError(
            f"{device} failed {where}: {type(error).__name__}: {problem} "
            f"({line.filename}, line {line.lineno}){hint}"
        ) from error


def not_finite(batch: Batch, request: Request, dtype: torch.dtype) -> ExecutionError:
    """The error of a sampled row of `request` that holds NaN or infinity."""
    kind = str(dtype).removeprefix("torch.")
    remedy = "check the weights"
    if kind == "float16":
        remedy += ", or run with --dtype bfloat16 or float32: float16 ends at 65504"
    elif kind == "bfloat16":
        remedy += ", or see whether --dtype float32 runs"
    return ExecutionError(
        f"iteration {batch.iteration}: the logits of request {request.id} hold NaN or "
        f"infinity ({kind}); {remedy}"
    )
