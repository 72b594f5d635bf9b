"""A ragged batch gives what its sequences give one by one, however they are cut and placed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from schedsim.executor.config import tiny
from schedsim.executor.forward_batch import Segment, build_batch
from schedsim.executor.kv_cache import KVStore
from schedsim.executor.model import Decoder
from schedsim.executor.weights import assemble, random_weights

CONFIG = tiny(layers=2, hidden=16, head_dim=8, heads=4, kv_heads=2, intermediate=24, vocab=31)
DECODER = Decoder(CONFIG, random_weights(CONFIG, seed=7, dtype=torch.float64))


def logits_alone(tokens: list[int]) -> torch.Tensor:
    """The logits after the last of `tokens`, in one forward of its own in one large block."""
    store = KVStore(CONFIG.shape, 1, len(tokens), dtype=torch.float64)
    return DECODER.forward(build_batch([Segment(tokens, 0, [1])], len(tokens)), store)[0]


@given(data=st.data(), block_size=st.integers(1, 9), is_contiguous=st.booleans())
def test_ragged_batch_equals_one_by_one(
    data: st.DataObject, block_size: int, is_contiguous: bool
) -> None:
    token = st.integers(0, CONFIG.shape.vocab - 1)
    prompts = data.draw(st.lists(st.lists(token, min_size=1, max_size=14), min_size=1, max_size=4))
    counts = [-(-len(tokens) // block_size) for tokens in prompts]
    blocks = list(range(1, sum(counts) + 1))
    if not is_contiguous:
        blocks = data.draw(st.permutations(blocks))
    tables = [[blocks.pop(0) for _ in range(count)] for count in counts]
    store = KVStore(CONFIG.shape, sum(counts), block_size, dtype=torch.float64)
    for layer in store.layers:
        layer.fill_(torch.nan)
    done = [0] * len(prompts)
    while any(len(tokens) > count for tokens, count in zip(prompts, done, strict=True)):
        left = [len(tokens) - count for tokens, count in zip(prompts, done, strict=True)]
        chunks = [n - data.draw(st.integers(0, n)) for n in left]
        chosen = [i for i, chunk in enumerate(chunks) if chunk]
        if not chosen:
            continue
        segments = [
            Segment(prompts[i][done[i] : done[i] + chunks[i]], done[i], tables[i]) for i in chosen
        ]
        logits = DECODER.forward(build_batch(segments, block_size, contiguous=is_contiguous), store)
        for row, i in zip(logits, chosen, strict=True):
            done[i] += chunks[i]
            torch.testing.assert_close(
                row, logits_alone(prompts[i][: done[i]]), rtol=1e-9, atol=1e-9
            )


def test_random_weights_are_a_function_of_the_seed() -> None:
    config = tiny(qkv_bias=True, qk_norm=True)
    first, again, other = (random_weights(config, seed) for seed in (1, 1, 2))
    assert torch.equal(first.layers[1].qkv.weight, again.layers[1].qkv.weight)
    assert not torch.equal(first.head, other.head)


@pytest.mark.parametrize("layers", [2, 24])
def test_random_logits_are_of_order_one_at_any_depth(layers: int) -> None:
    config = tiny(layers=layers, vocab=512)
    decoder = Decoder(config, random_weights(config, seed=3))
    batch = build_batch([Segment(list(range(40)), 0, [1, 2, 3])], 16)
    logits = decoder.forward(batch, KVStore(config.shape, 3, 16))
    assert 0.5 < float(logits.std()) < 2
    shares = logits.softmax(dim=-1)
    entropy = float(-(shares * shares.log()).sum())
    assert entropy > 0.5 * torch.tensor(512.0).log()  # nobody's token is certain


def test_bfloat16_stays_near_float32() -> None:
    config = tiny(qk_norm=True)
    generator = torch.Generator().manual_seed(3)
    parameters: dict[str, torch.Tensor] = {}

    def draw(name: str, size: tuple[int, ...]) -> torch.Tensor:
        scale = 1 if len(size) == 1 else size[-1] ** -0.5
        parameters[name] = (torch.randn(size, generator=generator) * scale).bfloat16()
        return parameters[name]

    narrow = Decoder(config, assemble(config, draw))
    wide = Decoder(config, assemble(config, lambda name, _: parameters[name].float()))
    batch = build_batch([Segment(list(range(40)), 0, [1, 2, 3])], 16)
    rounded, exact = (
        decoder.forward(batch, KVStore(config.shape, 3, 16, dtype=decoder.dtype))
        for decoder in (narrow, wide)
    )
    assert rounded.dtype == torch.bfloat16
    assert float((rounded.float() - exact).norm() / exact.norm()) < 0.05


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        (Segment([], 0, [1]), "runs no token"),
        (Segment([1, 2, 3], 0, [1]), "the table has 1"),
        (Segment([1, 2, 3], 0, [1, 0]), "null block"),
    ],
)
def test_wrong_segments_are_caught(segment: Segment, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        build_batch([segment], 2)


def test_contiguous_form_wants_consecutive_blocks() -> None:
    with pytest.raises(AssertionError, match="skips a block"):
        build_batch([Segment([1, 2, 3], 0, [1, 3])], 2, contiguous=True)
