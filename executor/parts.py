"""`DeviceParts`: what an engine on our kernels holds on its device, for one run after another."""

from typing import NamedTuple

from schedsim.executor.iterations import Iterations
from schedsim.executor.kernel_decoder import KernelDecoder
from schedsim.executor.kernel_inputs import KernelInputs


class PartSizes(NamedTuple):
    """All that parts depend on beside the decoder: of equal sizes, one set does what another does.

    `table_width` is 1 with sequences in one piece, else units of the longest context; `positions`
    are those of the decoder's angles, at whose address captured iterations read. `cache_bytes` are
    the blocks' on the device, `workspace` those that a forward pass may take beside all parts.
    """

    num_blocks: int
    block_size: int
    num_host_blocks: int
    max_seqs: int
    table_width: int
    temperature: float
    positions: int
    cache_bytes: int
    workspace: int


class DeviceParts:
    """KV store, inputs and iterations of one run at a time; `beside` are the sets kept meanwhile.

    A run may find older keys and values in the blocks: it writes what it reads.
    """

    def __init__(self, decoder: KernelDecoder, sizes: PartSizes) -> None:
        """Allocate everything; nothing is captured yet.

        Raises:
            ConfigError: the memory cannot be had.
        """
        self.sizes = sizes
        self.beside: list[DeviceParts] = []
        self.store = decoder.new_store(
            sizes.num_blocks, sizes.block_size, num_host_blocks=sizes.num_host_blocks
        )
        self.inputs = KernelInputs(
            sizes.max_seqs,
            sizes.table_width,
            temperature=sizes.temperature,
            device=decoder.device,
        )
        self.iterations = Iterations(decoder, self.store, self.inputs)
        self._is_warm = False

    def warm_up(self) -> None:
        """Compile and capture, once; before the first message of a run is sent."""
        if not self._is_warm:
            self.iterations.warm_up()
            self._is_warm = True

    def reset(self) -> None:
        """Make them what they are before a first run, but for keys and values and the captures."""
        self.store.clear_null_block()
        self.inputs.clear()
