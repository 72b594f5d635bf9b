"""`decode_inputs`: what a decode iteration reads, unpacked on the device from one small message.

One copy an iteration brings the message; everything that it says ends at fixed addresses, so the
kernels that read it can stand in a CUDA graph.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from schedsim.kernels.checks import check_on_gpu, check_tensor, require

HEADER = 4
"""int32 words before the rows: rows in use, changes of the table, the draw's number, unused."""

ROW_FIELDS = 3
"""Words of a row: tokens with the new one, the token fed in, its slot; each field by itself."""

ROWS_PER_PROGRAM = 128


def message_words(max_rows: int, max_changes: int) -> int:
    """int32 words of the longest message: header, rows field by field, (index, block) pairs."""
    return HEADER + ROW_FIELDS * max_rows + 2 * max_changes


@triton.jit
def decode_inputs_kernel(
    # tensors
    message,  # [HEADER + 3 · max_rows + 2 · changes] int32
    fields,  # [4, max_rows] int64, written: token ids, positions, slots, context lengths
    context_lengths,  # [rows] int32, written
    seeds,  # [rows] int64, written
    table,  # int32, written at the changed places
    # sizes
    num_rows,  # written: those in use and those that pad
    max_rows,
    # constants
    AT_ONCE: tl.constexpr,
    FIRST: tl.constexpr,  # words of the header
):
    used = tl.load(message)
    num_changes = tl.load(message + 1)
    draw = tl.load(message + 2)
    row = tl.program_id(0) * AT_ONCE + tl.arange(0, AT_ONCE)
    told = message + FIRST + row
    inside = row < used
    length = tl.load(told, mask=inside, other=0)
    token = tl.load(told + max_rows, mask=inside, other=0)
    slot = tl.load(told + 2 * max_rows, mask=inside, other=0)
    written = row < num_rows
    tl.store(context_lengths + row, length, mask=written)
    tl.store(fields + row, token.to(tl.int64), mask=written)
    tl.store(fields + max_rows + row, tl.maximum(length - 1, 0).to(tl.int64), mask=written)
    tl.store(fields + 2 * max_rows + row, slot.to(tl.int64), mask=written)
    tl.store(fields + 3 * max_rows + row, length.to(tl.int64), mask=written)
    tl.store(seeds + row, draw.to(tl.int64) * max_rows + row, mask=written)
    changes = message + FIRST + 3 * max_rows
    step = tl.num_programs(0) * AT_ONCE
    for start in range(tl.program_id(0) * AT_ONCE, num_changes, step):
        change = start + tl.arange(0, AT_ONCE)
        there = change < num_changes
        index = tl.load(changes + 2 * change, mask=there, other=0)
        block = tl.load(changes + 2 * change + 1, mask=there, other=0)
        tl.store(table + index, block, mask=there)


def decode_inputs(
    message: Tensor,
    fields: Tensor,
    context_lengths: Tensor,
    seeds: Tensor,
    table: Tensor,
    *,
    rows: int,
) -> None:
    """Unpack `message` into the first `rows` rows of the other tensors; waits for nothing.

    `message` int32 is [rows in use, changes, draw, 0], then, max_rows of each, context lengths with
    the new token, token ids and slots, then the changes: pairs of a flat index into `table` (int32,
    dense) and the block to put there, no index twice. Rows beyond those in use are padding: length
    0, slot 0. `fields` [4, max_rows] int64 gets token ids, positions, slots and context lengths,
    `context_lengths` [max_rows] int32 the latter too, `seeds` [max_rows] int64 draw · max_rows +
    row.

    Raises:
        KernelError: a wrong type, shape, stride or device.
    """
    check_on_gpu("message", message)
    max_rows = len(seeds)
    require(0 < rows <= max_rows, f"{rows} rows; 1 to {max_rows} are expected")
    require(
        message.numel() >= message_words(max_rows, 0),
        f"message holds {message.numel()} words; at least {message_words(max_rows, 0)} expected",
    )
    for name, tensor, shape, dtype in (
        ("message", message, (None,), torch.int32),
        ("fields", fields, (4, max_rows), torch.int64),
        ("context_lengths", context_lengths, (max_rows,), torch.int32),
        ("seeds", seeds, (max_rows,), torch.int64),
        ("table", table, (None, None), torch.int32),
    ):
        check_tensor(name, tensor, shape=shape, dtype=dtype, device=message.device, contiguous=True)
    decode_inputs_kernel[(triton.cdiv(rows, ROWS_PER_PROGRAM),)](
        message, fields, context_lengths, seeds, table, rows, max_rows,
        AT_ONCE=ROWS_PER_PROGRAM,
        FIRST=HEADER,
    )  # fmt: skip
