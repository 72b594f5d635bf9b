"""Decode attention: paged and contiguous against the reference, and the plan it follows."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from schedsim.kernels import decode_plan, reference
from schedsim.kernels.decode import contiguous_decode, paged_decode
from schedsim.kernels.decode_plan import DecodePlan
from tests.kernels.batches import PagedBatch, paged_batch, random_query
from tests.kernels.cases import Case, interpreted

TOLERANCE = {torch.float32: 5e-6, torch.float16: 1e-3}


@pytest.fixture(autouse=True)
def _several_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plan for a small GPU even on the interpreter's one processor, so that contexts are split."""
    monkeypatch.setattr(decode_plan, "num_processors", lambda device: 8)


def expected(batch: PagedBatch, query: torch.Tensor) -> torch.Tensor:
    rows = [row for row, length in enumerate(batch.lengths) if length]
    output = torch.zeros_like(query, dtype=torch.float64)
    output[rows] = reference.attention(
        query[rows],
        batch.keys,
        batch.values,
        batch.block_table[rows],
        [1] * len(rows),
        [batch.lengths[row] for row in rows],
        query.shape[2] ** -0.5,
    )
    return output


def check(output: torch.Tensor, batch: PagedBatch, query: torch.Tensor) -> None:
    wanted = expected(batch, query)
    empty = [row for row, length in enumerate(batch.lengths) if not length]
    assert not output.isnan().any()
    assert (output[empty] == 0).all()
    used = [row for row, length in enumerate(batch.lengths) if length]
    assert reference.rows_error(output[used], wanted[used]) < TOLERANCE[query.dtype]


def make(
    case: Case, lengths: list[int], device: str, *, in_order: bool
) -> tuple[PagedBatch, torch.Tensor, DecodePlan]:
    batch = paged_batch(
        lengths,
        block_size=case.block_size,
        kv_heads=case.kv_heads,
        head_dim=case.head_dim,
        dtype=case.dtype,
        device=device,
        in_order=in_order,
    )
    query = random_query(len(lengths), case.heads, case.head_dim, case.dtype, device)
    plan = DecodePlan(8, case.heads, case.kv_heads, case.head_dim, dtype=case.dtype, device=device)
    plan.build(batch.context_lengths)
    return batch, query, plan


@pytest.mark.parametrize("case", interpreted(), ids=str)
def test_paged_decode_equals_the_reference(case: Case, device: str) -> None:
    batch, query, plan = make(case, [100, 1, 700, 0, 257], device, in_order=False)
    scale = case.head_dim**-0.5
    for _ in range(2):  # the second launch finds the counters as the first one left them
        output = torch.full_like(query, float("nan"))
        paged_decode(
            query, batch.keys, batch.values, batch.block_table, plan, scale=scale, output=output
        )
        check(output, batch, query)
    assert not plan.arrivals.any()
    assert plan.is_read
    plan.build(batch.context_lengths)
    assert not plan.is_read, "the next decode must not start before this plan is made"


@pytest.mark.parametrize("case", interpreted()[:4], ids=str)
def test_contiguous_decode_equals_the_reference(case: Case, device: str) -> None:
    batch, query, plan = make(case, [300, 1, 65], device, in_order=True)
    output = torch.full_like(query, float("nan"))
    contiguous_decode(
        query, batch.keys, batch.values, batch.first_blocks, plan,
        scale=case.head_dim**-0.5, output=output,
    )  # fmt: skip
    check(output, batch, query)


def test_a_query_that_is_part_of_a_projection_is_read_in_place(device: str) -> None:
    case = Case(4, 2, 64, 16, torch.float32)
    batch, query, plan = make(case, [40, 90], device, in_order=False)
    projected = torch.randn(2, 8, 64, device=device)
    projected[:, :4] = query
    output = paged_decode(
        projected[:, :4], batch.keys, batch.values, batch.block_table, plan, scale=0.125
    )
    check(output, batch, query)


LENGTHS = st.lists(st.integers(0, 5000), min_size=1, max_size=150)


@given(lengths=LENGTHS, kv_heads=st.sampled_from([1, 2, 8]))
@hypothesis_settings(max_examples=25, deadline=None)  # the first one compiles
def test_a_plan_covers_every_context_once_longest_splits_first(
    lengths: list[int], kv_heads: int
) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"
    plan = DecodePlan(160, kv_heads, kv_heads, 64, dtype=torch.float16, device=device)
    plan.records.fill_(-7)
    plan.build(torch.tensor(lengths, dtype=torch.int32, device=device))
    records = [record[:6] for record in plan.records.tolist()]
    used = [record for record in records if record[0] >= 0]
    assert all(record[0] == -1 for record in records[len(used) :])
    sizes = [end - first for _, first, end, *_ in used]
    assert sizes == sorted(sizes, reverse=True)
    places = []
    for sequence, length in enumerate(lengths):
        own = sorted(record for record in used if record[0] == sequence)
        assert [first for _, first, *_ in own] == [0] + [end for _, _, end, *_ in own[:-1]]
        assert own[-1][2] == length
        assert all(first % plan.tiles.tokens == 0 for _, first, *_ in own)
        assert all(record[3] == len(own) and record[4] == own[0][5] for record in own)
        places += [record[5] for record in own]
    assert sorted(places) == list(range(len(used)))


def test_a_batch_makes_about_as_many_programs_as_the_device_runs(device: str) -> None:
    plan = DecodePlan(8, 8, 2, 64, dtype=torch.float16, device=device)
    plan.build(torch.tensor([20000, 9000], dtype=torch.int32, device=device))
    programs = int((plan.records[:, 0] >= 0).sum()) * 2
    assert plan.target_splits * 2 * 0.7 <= programs <= (plan.target_splits + 2) * 2


def test_lengths_from_the_host_make_the_same_plan(device: str) -> None:
    plan = DecodePlan(8, 8, 2, 64, dtype=torch.float16, device=device)
    plan.build(torch.tensor([900, 31, 1], dtype=torch.int32, device=device))
    records = plan.records.clone()
    plan.build([900, 31, 1])
    assert (plan.records == records).all()
