"""`Paper`: slots that keep the tokens themselves where a device keeps their keys and values."""

from collections.abc import Iterable, Sequence

VOCAB = 2**62
"""So many ids that tokens of different content never meet by chance."""


class Paper:
    """What every slot of the device and of the host tier holds."""

    def __init__(self, block_size: int) -> None:
        self.block_size = block_size
        self._device: dict[tuple[int, int], int] = {}
        self._host: dict[tuple[int, int], int] = {}

    def write(self, table: Sequence[int], start: int, tokens: Iterable[int]) -> None:
        """Put `tokens` at the places from `start` on, by the block table."""
        for place, token in enumerate(tokens, start):
            self._device[table[place // self.block_size], place % self.block_size] = token

    def read(self, table: Sequence[int], stop: int) -> list[int | None]:
        """What stands at the places below `stop`; None where nothing was written."""
        size = self.block_size
        return [
            self._device.get((table[place // size], place % size))
            if place < len(table) * size
            else None
            for place in range(stop)
        ]

    def move(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Copy blocks on the device; as in the other two, all are read before one is written."""
        self._copy(self._device, self._device, pairs)

    def swap_out(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Copy blocks of the device to the host."""
        self._copy(self._device, self._host, pairs)

    def swap_in(self, pairs: Iterable[tuple[int, int]]) -> None:
        """Copy blocks of the host to the device."""
        self._copy(self._host, self._device, pairs)

    def _copy(
        self,
        source: dict[tuple[int, int], int],
        target: dict[tuple[int, int], int],
        pairs: Iterable[tuple[int, int]],
    ) -> None:
        read = {
            (new, place): source.get((old, place))
            for old, new in pairs
            for place in range(self.block_size)
        }
        for slot, token in read.items():
            target.pop(slot, None)
            if token is not None:
                target[slot] = token
