"""`decode_inputs` puts every word of a message where it belongs, and touches nothing else."""

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from schedsim.kernels.checks import KernelError
from schedsim.kernels.decode_inputs import HEADER, decode_inputs, message_words

MAX_ROWS = 150
UNTOUCHED = -9


def unpacked(used: int, rows: int, changes: list[tuple[int, int]], device: str) -> None:
    generator = torch.Generator().manual_seed(used * 1000 + rows)
    words = torch.randint(1, 10**6, (message_words(MAX_ROWS, 200),), generator=generator)
    words[:3] = torch.tensor([used, len(changes), 5])
    told = words[HEADER : HEADER + 3 * MAX_ROWS].view(3, MAX_ROWS).clone()
    first = HEADER + 3 * MAX_ROWS
    for number, (index, block) in enumerate(changes):
        words[first + 2 * number], words[first + 2 * number + 1] = index, block

    def full(*size: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.full(size, UNTOUCHED, dtype=dtype, device=device)

    fields = full(4, MAX_ROWS, dtype=torch.int64)
    lengths = full(MAX_ROWS, dtype=torch.int32)
    seeds = full(MAX_ROWS, dtype=torch.int64)
    table = full(MAX_ROWS, 8, dtype=torch.int32)
    decode_inputs(words.int().to(device), fields, lengths, seeds, table, rows=rows)

    told[:, used:] = 0
    length, token, slot = told[:, :rows]
    wanted = torch.stack((token, (length - 1).clamp(min=0), slot, length))
    assert (fields[:, :rows].cpu() == wanted).all()
    assert (lengths[:rows].cpu() == length).all()
    assert (seeds[:rows].cpu() == 5 * MAX_ROWS + torch.arange(rows)).all()
    for tensor in (fields, lengths[None], seeds[None]):
        assert (tensor[:, rows:] == UNTOUCHED).all()
    expected = torch.full((MAX_ROWS * 8,), UNTOUCHED)
    for index, block in changes:
        expected[index] = block
    assert (table.flatten().cpu() == expected).all()


@pytest.mark.parametrize(("used", "rows"), [(1, 1), (5, 8), (128, 128), (149, 150), (0, 4)])
def test_rows_and_changes_come_where_they_belong(used: int, rows: int, device: str) -> None:
    unpacked(used, rows, [(index * 7 % (MAX_ROWS * 8), index) for index in range(170)], device)
    unpacked(used, rows, [], device)


def test_more_rows_than_there_are_is_refused(device: str) -> None:
    with pytest.raises(KernelError, match="151 rows; 1 to 150"):
        unpacked(1, 151, [], device)
