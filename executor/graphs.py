"""`Graphs`: iterations captured once for some sizes, and which sizes these are."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

DECODE_STEPS = ((8, 1), (32, 8), (512, 16))
"""(size, step): up to a size, batches of decodes are padded to a multiple of the step."""

MIXED_SIZES = (32, 64, 128, 192, 256, *range(384, 1025, 128), *range(1280, 2561, 256))
"""Tokens of the batches with chunks that are captured; larger ones keep the device busy while they
are launched kernel by kernel."""

Step = Callable[[], Tensor]
"""Launches an iteration of one size and returns the sampled tokens."""


def decode_sizes(max_rows: int) -> list[int]:
    """Rows of the decode iterations that are captured, ascending; the largest is `max_rows`."""
    sizes = [1, 2, 4]
    for limit, step in DECODE_STEPS:
        sizes += range(sizes[-1] // step * step + step, limit + 1, step)
    while sizes[-1] < max_rows:
        sizes.append(sizes[-1] + 64)
    return [*(size for size in sizes if size < max_rows), max_rows]


def size_for(sizes: Sequence[int], wanted: int) -> int | None:
    """The smallest of ascending `sizes` with room for `wanted`; None if there is none."""
    return next((size for size in sizes if size >= wanted), None)


class Graphs:
    """Iterations by name, each of which reads and writes at fixed addresses.

    On a CUDA device `capture` captures them and `run` replays them; elsewhere `run` calls the step.
    All share one memory pool, which is right because they run one after the other. No step is kept,
    so that whoever has both it and the graphs is freed, with the KV cache, when nobody needs it.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._captured: dict[tuple[str, int], tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

    def capture(self, name: tuple[str, int], step: Step) -> None:
        """Capture `step`; the largest first, so that the others find room in its memory."""
        if self._pool is None:
            return
        step()  # compiles, and lets libraries take what memory they want
        torch.cuda.synchronize(self._device)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool):
            sampled = step()
        self._captured[name] = graph, sampled

    def run(self, name: tuple[str, int], step: Step) -> Tensor:
        """Launch the iteration; its tokens are right until the next `run`."""
        if name not in self._captured:
            return step()
        graph, sampled = self._captured[name]
        graph.replay()
        return sampled
