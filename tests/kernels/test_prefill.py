"""Prefill attention of chunks: paged, contiguous and whole blocks against the reference."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from schedsim.kernels import prefill, prefill_plan, reference
from schedsim.kernels.decode_plan import DecodePlan
from schedsim.kernels.mixed import paged_attention
from schedsim.kernels.prefill import contiguous_prefill, paged_prefill
from schedsim.kernels.prefill_plan import PrefillPlan
from tests.kernels.batches import PagedBatch, paged_batch, random_query
from tests.kernels.cases import Case, interpreted

TOLERANCE = {torch.float32: 5e-6, torch.float16: 1e-3}
CHUNKS = {"a whole prompt": (70, 70), "a chunk": (40, 200), "a decode": (1, 90), "first": (1, 1)}


def make(
    case: Case, chunks: dict[str, tuple[int, int]], device: str, *, in_order: bool = False
) -> tuple[PagedBatch, torch.Tensor, PrefillPlan, torch.Tensor]:
    query_lengths = [rows for rows, _ in chunks.values()]
    lengths = [length for _, length in chunks.values()]
    batch = paged_batch(
        lengths,
        block_size=case.block_size,
        kv_heads=case.kv_heads,
        head_dim=case.head_dim,
        dtype=case.dtype,
        device=device,
        in_order=in_order,
    )
    query = random_query(sum(query_lengths), case.heads, case.head_dim, case.dtype, device)
    plan = PrefillPlan(
        query_lengths, lengths, case.heads, case.kv_heads, case.head_dim,
        dtype=case.dtype, device=device,
    )  # fmt: skip
    expected = reference.attention(
        query, batch.keys, batch.values, batch.block_table, query_lengths, lengths,
        case.head_dim**-0.5,
    )  # fmt: skip
    return batch, query, plan, expected


@pytest.mark.parametrize("case", interpreted(), ids=str)
def test_paged_prefill_equals_the_reference(case: Case, device: str) -> None:
    batch, query, plan, expected = make(case, CHUNKS, device)
    output = torch.full_like(query, float("nan"))
    paged_prefill(
        query, batch.keys, batch.values, batch.block_table, plan,
        scale=case.head_dim**-0.5, output=output,
    )  # fmt: skip
    assert reference.rows_error(output, expected) < TOLERANCE[case.dtype]


@pytest.mark.parametrize("block_size", [64, 128])
def test_whole_blocks_by_the_copy_engine_equal_the_reference(
    block_size: int, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefill, "uses_copy_engine", lambda cache: True)
    case = Case(4, 2, 64, block_size, torch.float16)
    batch, query, plan, expected = make(case, {"long": (60, 500), **CHUNKS}, device)
    output = torch.full_like(query, float("nan"))
    paged_prefill(
        query, batch.keys, batch.values, batch.block_table, plan, scale=0.125, output=output
    )
    assert reference.rows_error(output, expected) < TOLERANCE[case.dtype]


@pytest.mark.parametrize("case", interpreted()[:4], ids=str)
def test_contiguous_prefill_equals_the_reference(case: Case, device: str) -> None:
    batch, query, plan, expected = make(case, CHUNKS, device, in_order=True)
    output = torch.full_like(query, float("nan"))
    contiguous_prefill(
        query, batch.keys, batch.values, batch.first_blocks, plan,
        scale=case.head_dim**-0.5, output=output,
    )  # fmt: skip
    assert reference.rows_error(output, expected) < TOLERANCE[case.dtype]


def test_a_mixed_batch_equals_the_reference(device: str) -> None:
    case = Case(4, 2, 64, 16, torch.float32)
    chunks = {"decode": (1, 80), "decode 2": (1, 3), "chunk": (20, 50), "prompt": (9, 9)}
    batch, query, _, expected = make(case, chunks, device)
    decodes = DecodePlan(4, 4, 2, 64, dtype=case.dtype, device=device)
    decodes.build(batch.context_lengths[:2])
    plan = PrefillPlan([20, 9], [50, 9], 4, 2, 64, dtype=case.dtype, device=device)
    output = paged_attention(
        query, batch.keys, batch.values, batch.block_table, decodes, plan, scale=0.125
    )
    assert reference.rows_error(output, expected) < TOLERANCE[case.dtype]


def test_a_plan_has_every_row_once_and_long_contexts_first(device: str) -> None:
    plan = PrefillPlan([300, 1, 77], [300, 40, 500], 8, 2, 64, dtype=torch.float16, device=device)
    records = plan.records.tolist()
    rows = sorted(row + i for _, row, _, count in records for i in range(count))
    assert rows == list(range(378))
    ends = [position + count for _, _, position, count in records]
    assert ends == sorted(ends, reverse=True)
    first_rows = {0: (0, 0), 1: (300, 39), 2: (301, 423)}
    for sequence, row, position, _ in records:
        first_row, first_position = first_rows[sequence]
        assert row - first_row == position - first_position >= 0


@pytest.mark.parametrize(
    ("heads", "kv_heads", "expected"),
    [
        (32, 8, 528),  # 128 rows are 32 tokens; 132 programs, 8 of them for each of these
        (24, 8, 693),  # 42 tokens, as three heads leave some rows over
        (128, 1, 132),
        (8, 8, 2112),
        (256 * 8, 256, 16),  # fewer programs than KV heads: a tile at least
    ],
)
def test_so_many_chunk_tokens_are_attended_to_at_once(
    heads: int, kv_heads: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prefill_plan, "num_processors", lambda device: 132)
    sizes = (heads, kv_heads, 128, torch.bfloat16)
    assert prefill_plan.attended_at_once(*sizes, torch.device("cuda")) == expected
    assert prefill_plan.attended_at_once(*sizes, torch.device("cpu")) == 0
