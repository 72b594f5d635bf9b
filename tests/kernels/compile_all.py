"""Prints, as JSON, what every kernel takes when it is compiled for a capability:

    python -m tests.kernels.compile_all 90 0/2

compiles the first of two shares of the cases for Hopper. No GPU is needed.
"""

import json
import sys
from collections.abc import Callable
from functools import partial

import torch

from schedsim.kernels import decode as decode_module
from schedsim.kernels import prefill
from schedsim.kernels.block_copy import copy_blocks
from schedsim.kernels.decode import contiguous_decode, paged_decode
from schedsim.kernels.decode_inputs import decode_inputs
from schedsim.kernels.decode_plan import DecodePlan
from schedsim.kernels.elementwise import rms_norm, silu_and_mul
from schedsim.kernels.prefill import contiguous_prefill, paged_prefill
from schedsim.kernels.prefill_plan import PrefillPlan
from schedsim.kernels.sampling import sample
from schedsim.kernels.write_kv import QKNorm, write_kv
from tests.kernels.batches import paged_batch, random_query
from tests.kernels.cases import Case, compiled
from tests.kernels.compilation import SHARED_LIMITS, compiling


def decode(case: Case) -> None:
    batch = paged_batch(
        [100, 33], block_size=case.block_size, kv_heads=case.kv_heads, head_dim=case.head_dim,
        dtype=case.dtype,
    )  # fmt: skip
    query = random_query(2, case.heads, case.head_dim, case.dtype)
    plan = DecodePlan(4, *case[:3], dtype=case.dtype, device="cpu")
    plan.build(batch.context_lengths)
    caches = (batch.keys, batch.values)
    paged_decode(query, *caches, batch.block_table, plan, scale=0.1)
    contiguous_decode(query, *caches, batch.first_blocks, plan, scale=0.1)


def prefill_of(case: Case) -> None:
    batch = paged_batch(
        [100, 33], block_size=case.block_size, kv_heads=case.kv_heads, head_dim=case.head_dim,
        dtype=case.dtype,
    )  # fmt: skip
    query = random_query(60, case.heads, case.head_dim, case.dtype)
    plan = PrefillPlan([30, 30], [100, 33], *case[:3], dtype=case.dtype, device="cpu")
    caches = (batch.keys, batch.values)
    paged_prefill(query, *caches, batch.block_table, plan, scale=0.1)
    contiguous_prefill(query, *caches, batch.first_blocks, plan, scale=0.1)


def kv_write(case: Case) -> None:
    batch = paged_batch(
        [40], block_size=case.block_size, kv_heads=case.kv_heads, head_dim=case.head_dim,
        dtype=case.dtype,
    )  # fmt: skip
    projected = random_query(3, case.heads + 2 * case.kv_heads, case.head_dim, case.dtype)
    cos, sin = torch.ones(2, 3, case.head_dim // 2)
    weight = torch.ones(case.head_dim, dtype=case.dtype)
    for norm in (None, QKNorm(weight, weight, 1e-6)):
        slots = torch.arange(3)
        write_kv(projected, batch.keys, batch.values, slots, cos, sin, norm=norm)


def layer_kernels() -> None:
    for hidden, dtype in ((4096, torch.bfloat16), (16384, torch.bfloat16), (576, torch.float32)):
        x, weight = torch.zeros(2, hidden, dtype=dtype), torch.zeros(hidden, dtype=dtype)
        rms_norm(x, weight, 1e-5)
        rms_norm(x, weight, 1e-5, torch.zeros_like(x))
        silu_and_mul(x)
        sample(x, torch.zeros(2), torch.zeros(2, dtype=torch.int64))
    words, longs = torch.zeros(100, dtype=torch.int32), torch.zeros(4, 8, dtype=torch.int64)
    decode_inputs(words, longs, words[:8], longs[0], words[:64].view(8, 8), rows=8)
    layers = [torch.zeros(4, 2, 16, 8, 128, dtype=torch.bfloat16)]
    copy_blocks(layers, layers, [(0, 1)])


def jobs() -> list[Callable[[], None]]:
    """A thing to compile each."""
    return [
        layer_kernels,
        *(partial(make, case) for case in compiled() for make in (decode, prefill_of, kv_write)),
    ]


def main() -> None:
    capability = int(sys.argv[1])
    share, shares = (int(number) for number in sys.argv[2].split("/"))
    decode_module.starts_early = lambda device: capability >= 90
    prefill.shared_memory = lambda device: SHARED_LIMITS[capability]

    def fits_copy_engine(cache: torch.Tensor) -> bool:
        head_dim = cache.shape[3]
        power_of_two = head_dim & (head_dim - 1) == 0
        return capability >= 90 and power_of_two and cache.element_size() == 2

    prefill.uses_copy_engine = fits_copy_engine
    with compiling(capability) as usages:
        for job in jobs()[share::shares]:
            job()
    print(json.dumps([usage._asdict() for usage in usages]))


if __name__ == "__main__":
    main()
