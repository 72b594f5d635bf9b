"""On a GPU: every case at real sizes, fresh random data, poisoned outputs, float64 references."""

import random

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from schedsim.kernels import reference
from schedsim.kernels.block_copy import copy_blocks
from schedsim.kernels.decode import contiguous_decode, paged_decode
from schedsim.kernels.decode_plan import DecodePlan
from schedsim.kernels.elementwise import rms_norm, silu_and_mul
from schedsim.kernels.mixed import paged_attention
from schedsim.kernels.prefill import contiguous_prefill, paged_prefill
from schedsim.kernels.prefill_plan import PrefillPlan
from schedsim.kernels.sampling import sample
from schedsim.kernels.write_kv import QKNorm, write_kv
from tests.kernels.batches import PagedBatch, paged_batch, random_query
from tests.kernels.cases import Case, measured

pytestmark = pytest.mark.gpu

TOLERANCE = {torch.bfloat16: 5e-3, torch.float16: 1e-3, torch.float32: 1e-5}
BRAIN = torch.bfloat16


def fresh_seed() -> int:
    """A new one every run; an assertion that fails names it."""
    return random.SystemRandom().randrange(2**31)


def make(case: Case, lengths: list[int], seed: int, *, in_order: bool = False) -> PagedBatch:
    return paged_batch(
        lengths, block_size=case.block_size, kv_heads=case.kv_heads, head_dim=case.head_dim,
        dtype=case.dtype, device="cuda", in_order=in_order, seed=seed,
    )  # fmt: skip


def decode_plan(case: Case, lengths: list[int]) -> DecodePlan:
    plan = DecodePlan(len(lengths), *case[:3], dtype=case.dtype, device="cuda")
    plan.build(lengths)
    return plan


@pytest.mark.parametrize("in_order", [False, True], ids=["paged", "contiguous"])
@pytest.mark.parametrize("case", measured(), ids=str)
@pytest.mark.parametrize("kind", ["ragged", "one long", "many short"])
def test_decode(kind: str, case: Case, in_order: bool) -> None:
    seed = fresh_seed()
    dice = random.Random(seed)
    lengths = {
        "ragged": [int(1.08 ** dice.uniform(0, 125)) for _ in range(60)],
        "one long": [20000 + dice.randrange(1000)],
        "many short": [dice.randrange(1, 200) for _ in range(300)],
    }[kind]
    batch = make(case, lengths, seed, in_order=in_order)
    query = random_query(len(lengths), case.heads, case.head_dim, case.dtype, "cuda", seed + 1)
    plan = decode_plan(case, lengths)
    output = torch.full_like(query, float("nan"))
    run, blocks = (
        (contiguous_decode, batch.first_blocks) if in_order else (paged_decode, batch.block_table)
    )
    scale = case.head_dim**-0.5
    for _ in range(2):
        output.fill_(float("nan"))
        run(query, batch.keys, batch.values, blocks, plan, scale=scale, output=output)
    wanted = reference.attention(
        query, batch.keys, batch.values, batch.block_table, [1] * len(lengths), lengths, scale
    )
    assert reference.rows_error(output, wanted) < TOLERANCE[case.dtype], f"seed {seed}"


def test_lengths_from_1_to_128k_in_one_launch() -> None:
    seed = fresh_seed()
    case = Case(32, 8, 128, 16, BRAIN)
    lengths = [1, 131072, 17, 64, 65, 5000, 99999, 16, 15]
    batch = make(case, lengths, seed)
    query = random_query(len(lengths), 32, 128, BRAIN, "cuda", seed + 1)
    plan = decode_plan(case, lengths)
    output = paged_decode(
        query, batch.keys, batch.values, batch.block_table, plan, scale=0.0884, debug=True
    )
    wanted = reference.attention(
        query, batch.keys, batch.values, batch.block_table, [1] * len(lengths), lengths, 0.0884
    )
    assert reference.rows_error(output, wanted) < 5e-3, f"seed {seed}"


def test_a_graph_follows_lengths_and_tables_and_repeats_to_the_bit() -> None:
    seed = fresh_seed()
    case = Case(32, 8, 128, 16, BRAIN)
    batch = make(case, [9000, 300, 40, 2500], seed)
    query = random_query(4, 32, 128, BRAIN, "cuda", seed + 1)
    lengths, table = batch.context_lengths.clone(), batch.block_table.clone()
    plan = DecodePlan(4, 32, 8, 128, dtype=BRAIN, device="cuda")
    output = torch.empty_like(query)

    def iteration() -> None:
        plan.build(lengths)
        for _ in range(3):
            paged_decode(query, batch.keys, batch.values, table, plan, scale=0.1, output=output)

    iteration()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        iteration()
    for order, counts in (
        ([0, 1, 2, 3], [9000, 300, 40, 2500]),
        ([2, 0, 3, 1], [33, 8111, 0, 299]),
    ):
        lengths.copy_(torch.tensor(counts, dtype=torch.int32))
        table.copy_(batch.block_table[order])
        output.fill_(float("nan"))
        graph.replay()
        first = output.clone()
        for _ in range(50):
            graph.replay()
            assert (output == first).all(), f"seed {seed}: two replays differ"
        rows = [row for row, count in enumerate(counts) if count]
        wanted = reference.attention(
            query[rows], batch.keys, batch.values, table[rows], [1] * len(rows),
            [counts[row] for row in rows], 0.1,
        )  # fmt: skip
        assert reference.rows_error(first[rows], wanted) < 5e-3, f"seed {seed}"
        assert not first[[row for row, count in enumerate(counts) if not count]].any()


def test_a_decode_reads_what_the_kernel_just_before_wrote() -> None:
    """Plan, table, keys and query: a program that starts early must not see the old ones."""
    seed = fresh_seed()
    case = Case(32, 8, 128, 16, BRAIN)
    lengths = [5000, 300, 40, 2500] * 4
    batch = make(case, lengths, seed)
    query = random_query(16, 32, 128, BRAIN, "cuda", seed + 1)
    orders = [torch.randperm(16, device="cuda") for _ in range(8)]
    table = torch.zeros_like(batch.block_table)
    keys, values = batch.cache.clone().unbind(1)
    new_query = torch.zeros_like(query)
    context_lengths = torch.zeros_like(batch.context_lengths)
    plan = DecodePlan(16, 32, 8, 128, dtype=BRAIN, device="cuda")
    outputs = torch.full((8, 4, *query.shape), float("nan"), device="cuda", dtype=BRAIN)

    def decode(output: torch.Tensor) -> None:
        paged_decode(new_query, keys, values, table, plan, scale=0.1, output=output)

    def iteration() -> None:
        keys.zero_()
        for order, output in zip(orders, outputs, strict=True):
            new_query.zero_()
            context_lengths.copy_(batch.context_lengths[order])
            torch.index_select(batch.block_table, 0, order, out=table)
            plan.build(context_lengths)
            decode(output[0])
            torch.index_select(query, 0, order, out=new_query)
            decode(output[1])
            keys.copy_(batch.keys)
            decode(output[2])
            table.zero_()
            decode(output[0])
            torch.index_select(batch.block_table, 0, order, out=table)
            decode(output[3])

    iteration()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        iteration()
    wanted = reference.attention(
        query, batch.keys, batch.values, batch.block_table, [1] * 16, lengths, 0.1
    )
    for _ in range(10):
        outputs.fill_(float("nan"))
        graph.replay()
        for order, output in zip(orders, outputs, strict=True):
            for found in output[2:]:
                assert reference.rows_error(found, wanted[order]) < 5e-3, f"seed {seed}"


@pytest.mark.parametrize("in_order", [False, True], ids=["paged", "contiguous"])
@pytest.mark.parametrize("case", measured(), ids=str)
def test_prefill(case: Case, in_order: bool) -> None:
    seed = fresh_seed()
    dice = random.Random(seed)
    queries = [1, 700, dice.randrange(1, 300), 33, 1, dice.randrange(1, 900)]
    lengths = [900, 700, 1500, 33, 1, 900 + dice.randrange(200)]
    batch = make(case, lengths, seed, in_order=in_order)
    query = random_query(sum(queries), case.heads, case.head_dim, case.dtype, "cuda", seed + 1)
    plan = PrefillPlan(queries, lengths, *case[:3], dtype=case.dtype, device="cuda")
    output = torch.full_like(query, float("nan"))
    run, blocks = (
        (contiguous_prefill, batch.first_blocks) if in_order else (paged_prefill, batch.block_table)
    )
    scale = case.head_dim**-0.5
    run(query, batch.keys, batch.values, blocks, plan, scale=scale, output=output)
    wanted = reference.attention(
        query, batch.keys, batch.values, batch.block_table, queries, lengths, scale
    )
    assert reference.rows_error(output, wanted) < TOLERANCE[case.dtype], f"seed {seed}"


def test_a_mixed_batch() -> None:
    seed = fresh_seed()
    case = Case(32, 8, 128, 16, BRAIN)
    queries, lengths = [1] * 20 + [200, 300], [600] * 20 + [200, 4000]
    batch = make(case, lengths, seed)
    query = random_query(sum(queries), 32, 128, BRAIN, "cuda", seed + 1)
    chunks = PrefillPlan(queries[20:], lengths[20:], *case[:3], dtype=BRAIN, device="cuda")
    caches = (batch.keys, batch.values)
    output = paged_attention(
        query, *caches, batch.block_table, decode_plan(case, lengths[:20]), chunks, scale=0.1
    )
    wanted = reference.attention(query, *caches, batch.block_table, queries, lengths, 0.1)
    assert reference.rows_error(output, wanted) < 5e-3, f"seed {seed}"


def test_layer_kernels_in_bfloat16() -> None:
    torch.manual_seed(fresh_seed())
    projected = torch.randn(300, 48, 128, device="cuda", dtype=BRAIN)
    cache = torch.full((40, 2, 16, 8, 128), float("nan"), device="cuda", dtype=BRAIN)
    wanted = cache.double()
    slots = torch.randperm(640, device="cuda")[:300]
    angles = torch.randn(300, 64, device="cuda")
    norm = QKNorm(*torch.rand(2, 128, device="cuda").to(BRAIN).unbind(), 1e-6)
    query = write_kv(projected, cache[:, 0], cache[:, 1], slots, angles.cos(), angles.sin(),
                     norm=norm)  # fmt: skip
    expected = reference.write_kv(
        projected, wanted[:, 0], wanted[:, 1], slots, angles.cos(), angles.sin(), norm
    )
    assert reference.rows_error(query, expected) < 5e-3
    written = ~wanted.isnan().any(-1)
    assert (cache.isnan() == wanted.isnan()).all()
    assert reference.rows_error(cache[written], wanted[written]) < 5e-3
    x, residual = torch.randn(2, 300, 4096, device="cuda", dtype=BRAIN)
    weight = torch.rand(4096, device="cuda").to(BRAIN)
    total = (x.float() + residual.float()).to(BRAIN)
    normed = rms_norm(x, weight, 1e-5, residual)
    assert (residual == total).all()
    expected = reference.rms_norm(total.double(), weight.double(), 1e-5)
    assert reference.rows_error(normed, expected) < 5e-3
    assert reference.rows_error(silu_and_mul(x), reference.silu_and_mul(x.double())) < 5e-3


def test_samples_of_a_real_vocabulary() -> None:
    torch.manual_seed(fresh_seed())
    logits = (3 * torch.randn(64, 128256, device="cuda")).to(BRAIN)
    temperatures = torch.rand(64, device="cuda") * (torch.arange(64, device="cuda") % 4 > 0)
    seeds = torch.randint(-(2**62), 2**62, (64,), device="cuda")
    sampled = sample(logits, temperatures, seeds)
    same = sampled.cpu() == reference.sample(logits, temperatures, seeds).cpu()
    assert same.float().mean() > 0.98, "more than logarithms' last bits differ"
    greedy = (temperatures == 0).cpu()
    best = logits.float().max(1).values.cpu()
    assert (logits.float().cpu()[torch.arange(64), sampled.cpu()][greedy] == best[greedy]).all()


def test_swaps_through_pinned_memory_bring_back_the_same_bytes() -> None:
    torch.manual_seed(fresh_seed())
    shape = (2, 16, 8, 128)
    layers = [torch.randn(50, *shape, device="cuda", dtype=BRAIN) for _ in range(4)]
    host = [torch.zeros(20, *shape, dtype=BRAIN).pin_memory() for _ in range(4)]
    before = [layer.clone() for layer in layers]
    copy_blocks(layers, host, [(7, 3), (49, 0)])
    for layer in layers:
        layer[[7, 49]] = float("nan")
    copy_blocks(host, layers, [(3, 7), (0, 49)])
    torch.cuda.synchronize()
    assert all((layer == old).all() for layer, old in zip(layers, before, strict=True))
    with pytest.raises(ValueError, match="not pinned"):
        copy_blocks(layers, [torch.zeros(20, *shape, dtype=BRAIN) for _ in range(4)], [(0, 0)])
