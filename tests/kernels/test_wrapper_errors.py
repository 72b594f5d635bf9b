"""What a wrapper does not take is refused before any launch, with what it is and what is taken."""

from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from schedsim.kernels.block_copy import copy_blocks
from schedsim.kernels.checks import KernelError
from schedsim.kernels.decode import paged_decode
from schedsim.kernels.decode_plan import DecodePlan
from schedsim.kernels.elementwise import rms_norm, silu_and_mul
from schedsim.kernels.mixed import paged_attention
from schedsim.kernels.prefill import contiguous_prefill, paged_prefill
from schedsim.kernels.prefill_plan import PrefillPlan
from schedsim.kernels.sampling import sample
from schedsim.kernels.write_kv import write_kv
from tests.kernels.batches import paged_batch, random_query

HEADS, KV_HEADS, HEAD_DIM = 4, 2, 64


class Call:
    """A good decode of two sequences, whose arguments a test spoils."""

    def __init__(self, device: str) -> None:
        self.batch = paged_batch(
            [40, 20], block_size=16, kv_heads=KV_HEADS, head_dim=HEAD_DIM,
            dtype=torch.float16, device=device,
        )  # fmt: skip
        self.query = random_query(2, HEADS, HEAD_DIM, torch.float16, device)
        self.keys, self.values = self.batch.keys, self.batch.values
        self.table = self.batch.block_table
        self.plan = DecodePlan(4, HEADS, KV_HEADS, HEAD_DIM, dtype=torch.float16, device=device)
        self.plan.build(self.batch.context_lengths)

    def __call__(self, **options: Any) -> Any:
        return paged_decode(
            self.query, self.keys, self.values, self.table, self.plan, scale=0.125, **options
        )


def set_to(name: str, change: Callable[[Any], Any]) -> Callable[[Call], None]:
    return lambda call: setattr(call, name, change(getattr(call, name)))


def column_strided(tensor: Any) -> Any:
    return tensor.transpose(-1, -2).contiguous().transpose(-1, -2)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (set_to("query", lambda q: q.double()), "query is torch.float64; supported"),
        (set_to("query", lambda q: q[0]), "query has shape"),
        (set_to("query", lambda q: q.to("meta")), "query lies on meta|lies on .*; meta is"),
        (set_to("query", column_strided), "query has stride 4 in its last dimension"),
        (set_to("query", lambda q: q[:1]), r"block_table has shape \[2, 3\]; \[1, any\]"),
        (set_to("keys", lambda k: k.float()), "key_cache is torch.float32; torch.float16"),
        (set_to("values", lambda v: v.contiguous()), "key_cache .* and value_cache .* differ"),
        (set_to("keys", column_strided), "key_cache has stride 16|key_cache has stride 2"),
        (set_to("keys", lambda k: k[:, :8]), "block size is 8; supported are 16, 32"),
        (set_to("table", lambda t: t.long()), "block_table is torch.int64; torch.int32"),
        (set_to("table", lambda t: t.T.contiguous().T), "block_table is not contiguous"),
    ],
)
def test_what_decode_does_not_take(
    spoil: Callable[[Call], None], message: str, device: str
) -> None:
    call = Call(device)
    call()
    spoil(call)
    with pytest.raises(KernelError, match=message):
        call()


def test_misaligned_rows_are_refused(device: str) -> None:
    call = Call(device)
    wide = torch.zeros(2, HEADS, HEAD_DIM + 1, dtype=torch.float16, device=device)
    call.query = wide[:, :, :HEAD_DIM]
    with pytest.raises(KernelError, match="no multiples of 16 bytes"):
        call()


@pytest.mark.parametrize(("block", "name"), [(99, "99"), (-1, "-1")])
def test_a_block_out_of_range_is_found_by_the_debug_check(
    block: int, name: str, device: str
) -> None:
    call = Call(device)
    call(debug=True)
    call.table[1, 0] = block
    with pytest.raises(KernelError, match=rf"sequence 1 names block \[{name}\]; .* 0 to 5"):
        call(debug=True)
    plan = PrefillPlan([1, 1], [40, 20], HEADS, KV_HEADS, HEAD_DIM, dtype=torch.float16,
                       device=device)  # fmt: skip
    with pytest.raises(KernelError, match=rf"sequence 1 names block \[{name}\]"):
        paged_prefill(call.query, call.keys, call.values, call.table, plan, scale=0.125, debug=True)


def test_a_context_longer_than_its_table_is_found_by_the_debug_check(device: str) -> None:
    call = Call(device)
    call.plan.build([49, 20])
    with pytest.raises(KernelError, match="sequence 0 has 49 tokens, more than 3 blocks hold"):
        call(debug=True)


def test_lengths_of_zero_are_refused(device: str) -> None:
    call = Call(device)
    with pytest.raises(KernelError, match=r"sequence \[1\] has a context without tokens"):
        call.plan.build([40, 0])
    call.plan.build(torch.tensor([40, 0], dtype=torch.int32, device=device))
    with pytest.raises(KernelError, match="sequence 1 has a context of 0 tokens"):
        call(debug=True)
    for rows, context in ((0, 5), (6, 5)):
        with pytest.raises(KernelError, match=f"sequence 1 has {rows} query tokens in a context"):
            PrefillPlan([1, rows], [3, context], 4, 2, 64, dtype=torch.float16, device=device)


def test_unsupported_heads_are_refused(device: str) -> None:
    with pytest.raises(KernelError, match="head_dim is 72; supported are"):
        DecodePlan(4, 4, 2, 72, dtype=torch.float16, device=device)
    with pytest.raises(KernelError, match="5 query heads cannot be shared by 2 KV heads"):
        PrefillPlan([1], [1], 5, 2, 64, dtype=torch.float16, device=device)


def test_a_plan_for_another_batch_is_refused(device: str) -> None:
    call = Call(device)
    call.plan.build([40])
    with pytest.raises(KernelError, match="built for 1 sequences; the query has 2"):
        call()
    with pytest.raises(KernelError, match="5 sequences; the plan was made for 1 to 4"):
        call.plan.build([1] * 5)
    plan = PrefillPlan([3], [40], HEADS, KV_HEADS, HEAD_DIM, dtype=torch.float16, device=device)
    first = torch.zeros(1, dtype=torch.int32, device=device)
    with pytest.raises(KernelError, match="chunks have 3 tokens; the query has 2"):
        contiguous_prefill(call.query, call.keys, call.values, first, plan, scale=0.125)
    with pytest.raises(KernelError, match="the plans have 4 tokens of 2 sequences"):
        paged_attention(
            call.query, call.keys, call.values, call.table, call.plan, plan, scale=0.125
        )


def test_layer_kernels_refuse_what_they_do_not_take(device: str) -> None:
    call = Call(device)
    half = torch.zeros(3, 8, dtype=torch.float16, device=device)
    with pytest.raises(KernelError, match=r"weight is torch.float32; torch.float16"):
        rms_norm(half, torch.zeros(8, device=device), 1e-5)
    with pytest.raises(KernelError, match="x has 7 columns"):
        silu_and_mul(half[:, :7])
    with pytest.raises(KernelError, match="rows must be dense"):
        silu_and_mul(half.T)
    seeds = torch.zeros(3, dtype=torch.int64, device=device)
    with pytest.raises(KernelError, match=r"temperatures is torch.int64"):
        sample(half, seeds, seeds)
    projected = torch.zeros(2, 8, HEAD_DIM, dtype=torch.float16, device=device)
    slots = torch.tensor([0, 16 * 6], device=device)
    rotation = torch.zeros(2, 32, device=device)
    with pytest.raises(KernelError, match=r"slot \[96\] is out of range; 0 to 95"):
        write_kv(projected, call.keys, call.values, slots, rotation, rotation, debug=True)
    with pytest.raises(KernelError, match=r"slots is torch.int32"):
        write_kv(projected, call.keys, call.values, slots.int(), rotation, rotation)
    with pytest.raises(KernelError, match=r"cos is \[2, 16\]"):
        write_kv(projected, call.keys, call.values, slots, rotation[:, :16], rotation)


def test_block_copies_without_an_order_are_refused(device: str) -> None:
    layers = [torch.zeros(4, 2, 16, 1, 64, device=device)]
    for pairs, message in (
        ([(0, 1), (1, 2)], "source and target"),
        ([(0, 1), (2, 1)], "target of two"),
        ([(0, 4)], r"target block \[4\] is out of range; 0 to 3"),
    ):
        with pytest.raises(KernelError, match=message):
            copy_blocks(layers, layers, pairs)
    with pytest.raises(KernelError, match="blocks differ"):
        copy_blocks(layers, [layers[0].half()], [(0, 1)])
