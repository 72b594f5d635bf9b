"""`KeptParts`: the device's parts of earlier runs, for later ones of the same sizes.

To capture an engine's iterations takes seconds; a run of the same sizes replays those of the run
before. Imports no Triton.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch

from schedsim.executor.device import empty_cache, free_bytes, room_for_cache

if TYPE_CHECKING:
    from schedsim.executor.parts import DeviceParts, PartSizes


class KeptParts:
    """At most two sets, so that runs may alternate between two sizes; lent to one run at a time.

    What is lent is kept again only if `keep` is told so: a run that breaks off takes its set, and
    those beside it, along.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._kept: list[DeviceParts] = []  # the one used last comes last

    def take(self, sizes: "PartSizes", make: Callable[[], "DeviceParts"]) -> "DeviceParts":
        """Parts of these sizes, kept ones or what `make` allocates, as they are before a first run.

        Whoever has them has all others too (`beside`), of which one stays where there is room.

        Raises:
            ConfigError: `make` finds no memory.
        """
        beside, self._kept = self._kept, []
        known = [parts.sizes for parts in beside]
        if sizes in known:
            parts = beside.pop(known.index(sizes))
            parts.reset()
        else:
            del beside[:-1]
            if beside and not self._have_room(sizes, beside[0].sizes):
                beside.clear()
                empty_cache(self._device)  # or remnants of the old blocks would be in the way
            parts = make()
        parts.beside = beside
        return parts

    def keep(self, parts: "DeviceParts") -> None:
        """Take back what was lent; its run has come to its end, and so has the device's work."""
        self._kept = [*parts.beside, parts]
        parts.beside = []

    def _have_room(self, sizes: "PartSizes", other: "PartSizes") -> bool:
        """Whether new parts surely find memory beside the kept `other` ones."""
        if sizes.num_host_blocks or other.num_host_blocks:
            return False  # nobody says what the host has
        workspace = max(sizes.workspace, other.workspace)
        room, _ = room_for_cache(self._device, free_bytes(self._device), workspace)
        return sizes.cache_bytes <= room
