"""`sample`: the next token of each row of logits, the likeliest one or drawn at a temperature.

Drawing adds Gumbel noise and takes the largest (the "Gumbel-max trick"): no softmax, no sort, and
a row's token depends on its logits, temperature and seed alone.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from schedsim.kernels.checks import DTYPES, check_on_gpu, check_tensor, require

TOKENS_PER_PROGRAM = 8192


@triton.jit
def sample_part_kernel(
    # tensors
    part_scores,  # [rows, parts] float32
    part_tokens,  # [rows, parts] int64
    logits,  # [rows, vocab]
    temperatures,  # [rows] float32
    seeds,  # [rows] int64
    # sizes
    vocab,
    # strides
    logits_row,
    # constants
    TOKENS: tl.constexpr,  # of a part
):
    row = tl.program_id(0).to(tl.int64)
    part = tl.program_id(1)
    tokens = part * TOKENS + tl.arange(0, TOKENS)
    scores = tl.load(
        logits + row * logits_row + tokens, mask=tokens < vocab, other=float("-inf")
    ).to(tl.float32)
    temperature = tl.load(temperatures + row)
    if temperature > 0.0:
        # Four tokens share a counter, whose four words are theirs.
        counters = part * (TOKENS // 4) + tl.arange(0, TOKENS // 4)
        w0, w1, w2, w3 = tl.randint4x(tl.load(seeds + row), counters)
        words = tl.reshape(tl.join(tl.join(w0, w2), tl.join(w1, w3)), [TOKENS])
        # 23 bits, so that the uniform number is exact and neither 0 nor 1.
        bits = words.to(tl.uint32, bitcast=True) >> 9
        uniform = (bits.to(tl.float32) + 0.5) * (1.0 / 8388608)
        scores = scores / temperature - tl.log(-tl.log(uniform))
    # NaN and infinity stay such at any temperature; as infinity they win.
    finite = (tl.abs(scores) < float("inf")) | (tokens >= vocab)
    scores = tl.where(finite, scores, float("inf"))
    best, index = tl.max(scores, axis=0, return_indices=True, return_indices_tie_break_left=True)
    place = row * tl.num_programs(1) + part
    tl.store(part_scores + place, best)
    tl.store(part_tokens + place, (part * TOKENS + index).to(tl.int64))


@triton.jit
def sample_best_kernel(
    # tensors
    sampled,  # [rows] int64
    part_scores,  # [rows, parts] float32
    part_tokens,  # [rows, parts] int64
    # sizes
    num_parts,
    # constants
    PARTS: tl.constexpr,  # padded to a power of two
):
    row = tl.program_id(0)
    parts = tl.arange(0, PARTS)
    scores = tl.load(
        part_scores + row * num_parts + parts, mask=parts < num_parts, other=float("-inf")
    )
    best, index = tl.max(scores, axis=0, return_indices=True, return_indices_tie_break_left=True)
    token = tl.load(part_tokens + row * num_parts + index)
    tl.store(sampled + row, tl.where(best < float("inf"), token, -1))


def sample(logits: Tensor, temperatures: Tensor, seeds: Tensor) -> Tensor:
    """A token a row [rows] int64 of `logits` [rows, vocab]; −1 where one is NaN or infinite.

    Temperature 0 takes the largest logit, of equal ones the first; above, tokens are drawn with
    probability softmax(logits / temperature). `temperatures` [rows] float32; `seeds` [rows] int64,
    a new one for every draw.

    Raises:
        KernelError: a wrong type, shape, stride or device.
    """
    require(
        logits.dim() == 2 and logits.numel() > 0,
        f"logits have shape {list(logits.shape)}; [rows, vocab] is expected",
    )
    require(logits.dtype in DTYPES, f"logits are {logits.dtype}; supported are {DTYPES}")
    check_on_gpu("logits", logits)
    require(logits.stride(1) == 1, f"logits have strides {logits.stride()}; rows must be dense")
    rows, vocab = logits.shape
    for name, tensor, dtype in (
        ("temperatures", temperatures, torch.float32),
        ("seeds", seeds, torch.int64),
    ):
        check_tensor(
            name, tensor, shape=(rows,), dtype=dtype, device=logits.device, contiguous=True
        )
    at_once = min(TOKENS_PER_PROGRAM, triton.next_power_of_2(vocab))
    parts = triton.cdiv(vocab, at_once)
    scores = torch.empty(rows, parts, dtype=torch.float32, device=logits.device)
    tokens = torch.empty(rows, parts, dtype=torch.int64, device=logits.device)
    sampled = torch.empty(rows, dtype=torch.int64, device=logits.device)
    sample_part_kernel[(rows, parts)](
        scores, tokens, logits, temperatures, seeds, vocab, logits.stride(0),
        TOKENS=at_once, num_warps=8,
    )  # fmt: skip
    sample_best_kernel[(rows,)](
        sampled, scores, tokens, parts, PARTS=triton.next_power_of_2(parts), num_warps=1
    )
    return sampled
