"""`KVStore`: the keys and values themselves, in physical blocks on a device and in host memory.

Which block belongs to whom is the memory manager's business (`schedsim.memory`).
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from schedsim.costs.models import ModelSpec
from schedsim.errors import ConfigError
from schedsim.executor.block_units import BlockUnits
from schedsim.executor.device import to_device


def token_bytes(shape: ModelSpec, dtype: torch.dtype) -> int:
    """Bytes of a token's keys and values in all layers."""
    count: int = 2 * shape.layers * shape.kv_heads * shape.head_dim * dtype.itemsize
    return count


def cache_bytes(shape: ModelSpec, num_blocks: int, block_size: int, dtype: torch.dtype) -> int:
    """Bytes of a store's `layers`, those of the null block included."""
    return (num_blocks + 1) * block_size * token_bytes(shape, dtype)


class KVStore:
    """One tensor a layer, [num_blocks + 1, 2, block_size, kv_heads, head_dim], keys before values.

    Block 0 is the null block: tables are padded with it and no token is kept there, so ids from
    1 to `num_blocks` are the memory manager's. A slot is a token's place: block · block_size +
    offset. `host_layers` has the same form with `num_host_blocks` blocks, in memory that a GPU
    reaches. `caches` are the same layers as the kernels see them: keys and values of each
    [units, tokens, kv_heads, head_dim]; empty where they take no such block size (`units` None).
    """

    def __init__(
        self,
        shape: ModelSpec,
        num_blocks: int,
        block_size: int,
        *,
        num_host_blocks: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> None:
        """Allocate all blocks, filled with zeros.

        Raises:
            ConfigError: the memory cannot be had; names the bytes wanted.
        """
        self.num_blocks = num_blocks
        self.num_host_blocks = num_host_blocks
        self.block_size = block_size
        self.dtype = dtype
        self.device = torch.device(device)
        self.layers = self._allocate(shape, num_blocks, self.device, "--blocks")
        self.host_layers = self._allocate(
            shape, num_host_blocks, torch.device("cpu"), "host_blocks of --memory"
        )
        self.units = BlockUnits.of_size(block_size)
        self.caches = (
            [] if self.units is None else [self._split(x, self.units) for x in self.layers]
        )

    def write(self, layer: int, keys: Tensor, values: Tensor, slot_mapping: Tensor) -> None:
        """Store keys and values [T, kv_heads, head_dim] of one layer in the slots [T]."""
        block_ids = slot_mapping // self.block_size
        offsets = slot_mapping % self.block_size
        self.layers[layer][block_ids, 0, offsets] = keys
        self.layers[layer][block_ids, 1, offsets] = values

    def copy_blocks(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy device blocks, (source, target) each; all sources are read before a write."""
        _copy(self.layers, self.layers, pairs)

    def swap_out(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy (device block, host block) pairs to host memory."""
        _copy(self.layers, self.host_layers, pairs)

    def swap_in(self, pairs: Sequence[tuple[int, int]]) -> None:
        """Copy (host block, device block) pairs to the device."""
        _copy(self.host_layers, self.layers, pairs)

    def clear_null_block(self) -> None:
        """Make block 0 zeros, as it is in a new store."""
        for layer in self.layers:
            layer[0].zero_()

    def _split(self, layer: Tensor, units: BlockUnits) -> tuple[Tensor, Tensor]:
        """Keys and values of a layer, in units."""
        if units.per_block == 1:
            return layer[:, 0], layer[:, 1]
        counted = layer.view(-1, units.tokens, *layer.shape[3:])
        return counted[: -units.per_block], counted[units.per_block :]

    def _allocate(
        self, shape: ModelSpec, num_blocks: int, device: torch.device, option: str
    ) -> list[Tensor]:
        size = (num_blocks + 1, 2, self.block_size, shape.kv_heads, shape.head_dim)
        try:
            pinned = device.type == "cpu" and self.device.type == "cuda" and num_blocks > 0
            return [
                torch.zeros(size, dtype=self.dtype, device=device, pin_memory=pinned)
                for _ in range(shape.layers)
            ]
        except RuntimeError as error:  # torch has one class for it on a GPU and none on a CPU
            layer_bytes = torch.Size(size).numel() * self.dtype.itemsize
            place = str(device) if option == "--blocks" else "the host"
            raise ConfigError(
                f"{num_blocks} KV blocks of {self.block_size} tokens need "
                f"{layer_bytes * shape.layers / 1e9:.2f} GB on {place}, which cannot be had; "
                f"take fewer with {option} ({str(error).splitlines()[0]})"
            ) from None


def _copy(sources: list[Tensor], targets: list[Tensor], pairs: Sequence[tuple[int, int]]) -> None:
    if not pairs:
        return
    source_ids = to_device([source for source, _ in pairs], sources[0].device)
    target_ids = to_device([target for _, target in pairs], targets[0].device)
    for source, target in zip(sources, targets, strict=True):
        target[target_ids] = source[source_ids].to(target.device)
