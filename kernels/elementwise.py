"""`rms_norm`, with a residual or without, and `silu_and_mul`: one pass over what they read."""

import torch
import triton
import triton.language as tl
from torch import Tensor

from schedsim.kernels.checks import DTYPES, check_on_gpu, check_tensor, require

MAX_HIDDEN = 32768


@triton.jit
def rms_norm_kernel(
    # tensors
    output,  # [rows, hidden]
    x,  # [rows, hidden]
    residual,  # [rows, hidden], RESIDUAL alone: read, and written with the sum
    weight,  # [hidden]
    # sizes
    hidden,
    epsilon,
    # strides
    x_row,
    # constants
    RESIDUAL: tl.constexpr,
    WIDTH: tl.constexpr,  # hidden padded to a power of two
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, WIDTH)
    inside = columns < hidden
    value = tl.load(x + row * x_row + columns, mask=inside, other=0.0)
    w = tl.load(weight + columns, mask=inside, other=0.0)
    if RESIDUAL:
        other = tl.load(residual + row * hidden + columns, mask=inside, other=0.0)
        value = (value.to(tl.float32) + other.to(tl.float32)).to(value.dtype)
        tl.store(residual + row * hidden + columns, value, mask=inside)
    precise = value.to(tl.float32)
    inverse = tl.rsqrt(tl.sum(precise * precise) / hidden + epsilon)
    result = precise * inverse * w.to(tl.float32)
    tl.store(output + row * hidden + columns, result.to(output.dtype.element_ty), mask=inside)


@triton.jit
def silu_and_mul_kernel(
    # tensors
    output,  # [rows, width]
    x,  # [rows, 2 · width]: gate, up
    # sizes
    width,
    # strides
    x_row,
    # constants
    COLUMNS: tl.constexpr,  # at once
):
    row = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = columns < width
    gate = tl.load(x + row * x_row + columns, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(x + row * x_row + width + columns, mask=inside, other=0.0).to(tl.float32)
    result = gate * tl.sigmoid(gate) * up
    tl.store(output + row * width + columns, result.to(output.dtype.element_ty), mask=inside)


def rms_norm(x: Tensor, weight: Tensor, epsilon: float, residual: Tensor | None = None) -> Tensor:
    """weight · x / √(mean x² + epsilon) over the last dimension of `x` [rows, hidden].

    With `residual` [rows, hidden], the norm of x + residual, which replaces `residual`.

    Raises:
        KernelError: a wrong type, shape, stride or device.
    """
    rows, hidden = _rows(x)
    require(hidden <= MAX_HIDDEN, f"x has {hidden} columns; at most {MAX_HIDDEN} are supported")
    check_tensor("weight", weight, shape=(hidden,), dtype=x.dtype, device=x.device, contiguous=True)
    if residual is not None:
        check_tensor(
            "residual", residual, shape=(rows, hidden), dtype=x.dtype, device=x.device,
            contiguous=True,
        )  # fmt: skip
    output = torch.empty(rows, hidden, dtype=x.dtype, device=x.device)
    width = triton.next_power_of_2(hidden)
    rms_norm_kernel[(rows,)](
        output, x, output if residual is None else residual, weight, hidden, epsilon, x.stride(0),
        RESIDUAL=residual is not None,
        WIDTH=width,
        num_warps=min(16, max(1, width // 512)),
    )  # fmt: skip
    return output


def silu_and_mul(x: Tensor) -> Tensor:
    """silu(gate) · up of `x` [rows, 2 · width], gate before up, to [rows, width].

    Raises:
        KernelError: a wrong type, shape, stride or device.
    """
    rows, columns = _rows(x)
    require(columns % 2 == 0, f"x has {columns} columns; gate and up are two equal halves")
    width = columns // 2
    output = torch.empty(rows, width, dtype=x.dtype, device=x.device)
    at_once = min(2048, triton.next_power_of_2(width))
    silu_and_mul_kernel[(rows, triton.cdiv(width, at_once))](
        output, x, width, x.stride(0), COLUMNS=at_once, num_warps=4
    )
    return output


def _rows(x: Tensor) -> tuple[int, int]:
    require(
        x.dim() == 2 and x.numel() > 0, f"x has shape {list(x.shape)}; [rows, columns] is expected"
    )
    require(x.dtype in DTYPES, f"x is {x.dtype}; supported are {DTYPES}")
    check_on_gpu("x", x)
    require(x.stride(1) == 1, f"x has strides {x.stride()}; rows must be dense")
    return x.shape[0], x.shape[1]
