"""Blocks move between slots, devices and host as asked and nothing else changes."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from schedsim.errors import ConfigError
from schedsim.executor.config import tiny
from schedsim.executor.kv_cache import KVStore

SHAPE = tiny(layers=2, kv_heads=2, head_dim=4).shape


def filled(num_blocks: int, block_size: int) -> KVStore:
    """A store in which every slot of every layer holds a number of its own."""
    store = KVStore(SHAPE, num_blocks, block_size, num_host_blocks=num_blocks)
    for index, layer in enumerate(store.layers + store.host_layers):
        layer.copy_(torch.arange(layer.numel()).view_as(layer) + index * 1e5)
    return store


def test_form_is_one_tensor_a_layer_with_a_null_block() -> None:
    store = KVStore(SHAPE, 5, 3)
    assert [layer.shape for layer in store.layers] == [(6, 2, 3, 2, 4)] * 2


def test_write_puts_each_token_into_its_slot() -> None:
    store = KVStore(SHAPE, 5, 3)
    keys, values = torch.randn(2, 4, 2, 4)
    store.write(1, keys, values, torch.tensor([7, 15, 3, 4]))
    for token, (block, offset) in enumerate([(2, 1), (5, 0), (1, 0), (1, 1)]):
        assert torch.equal(store.layers[1][block, 0, offset], keys[token])
        assert torch.equal(store.layers[1][block, 1, offset], values[token])
    assert int((store.layers[1] != 0).sum()) == 4 * 2 * 8
    assert not store.layers[0].any()


blocks = st.permutations(list(range(1, 7)))


@given(first=blocks, second=blocks, count=st.integers(0, 3))
def test_swapping_out_and_in_moves_whole_blocks(
    first: list[int], second: list[int], count: int
) -> None:
    store = filled(6, 2)
    before = [layer.clone() for layer in store.layers]
    host = second[:count]
    store.swap_out(list(zip(first[:count], host, strict=True)))
    targets = first[3 : 3 + count]
    store.swap_in(list(zip(host, targets, strict=True)))
    for layer, old in zip(store.layers, before, strict=True):
        expected = old.clone()
        for source, target in zip(first[:count], targets, strict=True):
            expected[target] = old[source]
        assert torch.equal(layer, expected)


def test_copies_read_before_they_write() -> None:
    store = filled(4, 2)
    before = [layer.clone() for layer in store.layers]
    store.copy_blocks([(1, 2), (2, 3), (3, 1)])
    for layer, old in zip(store.layers, before, strict=True):
        assert torch.equal(layer[[2, 3, 1, 4, 0]], old[[1, 2, 3, 4, 0]])


def test_too_many_blocks_are_told_in_bytes() -> None:
    with pytest.raises(ConfigError, match=r"need .* GB on cpu, which .* fewer with --blocks"):
        KVStore(SHAPE, 10**13, 16)
    told = r"need .* GB on the host, which .* fewer with host_blocks of --memory"
    with pytest.raises(ConfigError, match=told):
        KVStore(SHAPE, 10, 16, num_host_blocks=10**13)
