"""KV writes, norms, gated activation, sampling and block copies against their references."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from schedsim.kernels import block_copy, reference
from schedsim.kernels.block_copy import copy_blocks
from schedsim.kernels.elementwise import rms_norm, silu_and_mul
from schedsim.kernels.sampling import sample
from schedsim.kernels.write_kv import QKNorm, write_kv

TOLERANCE = {torch.float32: 1e-6, torch.float16: 1e-3}


@pytest.mark.parametrize("norm", [False, True], ids=["plain", "qk-norm"])
@pytest.mark.parametrize(
    ("heads", "kv_heads", "head_dim", "dtype"),
    [(4, 2, 64, torch.float32), (7, 1, 80, torch.float16), (12, 12, 96, torch.float16)],
)
def test_write_kv_equals_the_reference(
    heads: int, kv_heads: int, head_dim: int, dtype: torch.dtype, norm: bool, device: str
) -> None:
    torch.manual_seed(0)
    projected = torch.randn(5, heads + 2 * kv_heads, head_dim, device=device).to(dtype)
    cache = torch.full((4, 2, 16, kv_heads, head_dim), float("nan"), device=device, dtype=dtype)
    wanted = cache.double()
    slots = torch.tensor([17, 3, 40, 41, 63], device=device)
    angles = torch.randn(5, head_dim, device=device)  # rows of a wider tensor
    cos, sin = angles.cos()[:, : head_dim // 2], angles.sin()[:, : head_dim // 2]
    weights = torch.rand(2, head_dim, device=device).to(dtype)
    qk_norm = QKNorm(weights[0], weights[1], 1e-5) if norm else None
    query = write_kv(projected, cache[:, 0], cache[:, 1], slots, cos, sin, norm=qk_norm, debug=True)
    expected = reference.write_kv(projected, wanted[:, 0], wanted[:, 1], slots, cos, sin, qk_norm)
    assert reference.rows_error(query, expected) < TOLERANCE[dtype]
    written = ~wanted.isnan().any(-1)
    assert (cache.isnan() == wanted.isnan()).all(), "another slot than the named was touched"
    assert reference.rows_error(cache[written], wanted[written]) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("hidden", [100, 576])
def test_rms_norm_equals_the_reference(hidden: int, dtype: torch.dtype, device: str) -> None:
    torch.manual_seed(hidden)
    x, residual = torch.randn(2, 3, hidden, device=device).to(dtype)
    weight = torch.rand(hidden, device=device).to(dtype)
    plain = rms_norm(x, weight, 1e-5)
    expected = reference.rms_norm(x.double(), weight.double(), 1e-5)
    assert reference.rows_error(plain, expected) < TOLERANCE[dtype]
    total = (x.float() + residual.float()).to(dtype)
    summed = rms_norm(x, weight, 1e-5, residual)
    assert (residual == total).all()
    expected = reference.rms_norm(total.double(), weight.double(), 1e-5)
    assert reference.rows_error(summed, expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
@pytest.mark.parametrize("width", [72, 2500])
def test_silu_and_mul_equals_the_reference(width: int, dtype: torch.dtype, device: str) -> None:
    torch.manual_seed(width)
    x = torch.randn(3, 2 * width, device=device).to(dtype)
    expected = reference.silu_and_mul(x.double())
    assert reference.rows_error(silu_and_mul(x), expected) < TOLERANCE[dtype]


@pytest.mark.parametrize("vocab", [50, 9000])
def test_samples_are_those_of_the_reference(vocab: int, device: str) -> None:
    torch.manual_seed(vocab)
    logits = torch.randn(6, vocab, device=device)
    temperatures = torch.tensor([0.0, 1.0, 0.5, 2.0, 0.0, 1.0], device=device)
    seeds = torch.tensor([1, 2, 3, 2**40 + 5, -7, -12345678901], device=device)
    sampled = sample(logits, temperatures, seeds)
    assert sampled.tolist() == reference.sample(logits, temperatures, seeds).tolist()
    assert sampled[0] == logits[0].argmax()


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), -float("inf")])
def test_a_row_that_is_not_finite_has_no_token(
    wrong: float, temperature: float, device: str
) -> None:
    logits = torch.randn(3, 9000, device=device)
    logits[0, 3] = logits[2, 8999] = wrong
    temperatures = torch.full((3,), temperature, device=device)
    seeds = torch.arange(3, device=device)
    tokens = sample(logits, temperatures, seeds)
    assert tokens.tolist() == reference.sample(logits, temperatures, seeds).tolist()
    assert tokens[0] == tokens[2] == -1
    assert tokens[1] >= 0


def test_of_equal_logits_greedy_takes_the_first(device: str) -> None:
    logits = torch.zeros(2, 9000, device=device)
    logits[1, [8500, 40]] = 1.0
    zeros = torch.zeros(2, device=device)
    assert sample(logits, zeros, zeros.long()).tolist() == [0, 40]


def test_draws_follow_the_softmax(device: str) -> None:
    from scipy.stats import chisquare

    rows = 400
    logits = torch.tensor([0.0, 1.0, 2.0, -1.0], device=device).repeat(rows, 1)
    temperatures = torch.full((rows,), 0.8, device=device)
    seeds = torch.arange(rows, device=device) * 7919
    counts = torch.bincount(sample(logits, temperatures, seeds), minlength=4)
    expected = (logits[0] / 0.8).softmax(0) * rows
    assert chisquare(counts.cpu(), expected.cpu(), sum_check=False).pvalue > 1e-3


def test_blocks_of_every_layer_are_copied_and_no_others(device: str) -> None:
    sources = [torch.randn(5, 2, 16, 1, 64, device=device) for _ in range(3)]
    targets = [torch.zeros(4, 2, 16, 1, 64, device=device) for _ in range(3)]
    copy_blocks(sources, targets, [(4, 0), (1, 3)])
    for source, target in zip(sources, targets, strict=True):
        assert (target[0] == source[4]).all()
        assert (target[3] == source[1]).all()
        assert not target[1:3].any()


def test_blocks_are_copied_within_a_cache(device: str) -> None:
    layers = [torch.randn(4, 2, 32, 2, 80, device=device).half() for _ in range(2)]
    before = [layer.clone() for layer in layers]
    copy_blocks(layers, layers, [(0, 3), (0, 2)])
    for layer, old in zip(layers, before, strict=True):
        assert (layer == old[[0, 1, 0, 0]]).all()


def test_a_swap_goes_over_many_pieces_with_few_programs(
    monkeypatch: pytest.MonkeyPatch, device: str
) -> None:
    grids = []

    class Recorder:
        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            grids.append(grid)
            return kernel[grid]

    kernel = block_copy.copy_blocks_kernel
    monkeypatch.setattr(block_copy, "copy_blocks_kernel", Recorder())
    shape = (2, 16, 3, 96)  # 4608 words in float32: a whole piece, and one that ends early
    sources = [torch.randn(7, *shape, device=device) for _ in range(3)]
    targets = [torch.zeros(8, *shape) for _ in range(3)]
    if device == "cuda":
        targets = [target.pin_memory() for target in targets]
    pairs = [(0, 6), (6, 0), (3, 3), (4, 1), (1, 7), (2, 5)]
    copy_blocks(sources, targets, pairs)
    assert grids == [(16,)], "not one for each of 36 pieces"
    if device == "cuda":
        torch.cuda.synchronize()
    for source, target in zip(sources, targets, strict=True):
        for source_block, target_block in pairs:
            assert (target[target_block] == source[source_block].cpu()).all()
        assert not target[[2, 4]].any()
