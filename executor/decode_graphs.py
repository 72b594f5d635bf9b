"""`DecodeGraphs`: the decode iteration, captured once for each of some batch sizes."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

STEP_BELOW = ((8, 1), (32, 8), (512, 16))
"""(size, step): up to a size, batches are padded to a multiple of the step."""


def padded_sizes(max_rows: int) -> list[int]:
    """Batch sizes that are captured, ascending; the largest takes `max_rows`.

    One size for 5 and 6, 7 and 8 would do as well, but the smallest are cheap to capture.
    """
    sizes = [1, 2, 4]
    for limit, step in STEP_BELOW:
        sizes += range(sizes[-1] // step * step + step, limit + 1, step)
    while sizes[-1] < max_rows:
        sizes.append(sizes[-1] + 64)
    smaller = sorted({size for size in sizes if size < max_rows})
    return [*smaller, max_rows]


Step = Callable[[int], Tensor]
"""Launches a decode iteration of so many rows, which returns their sampled tokens."""


class DecodeGraphs:
    """Runs a decode iteration with room for so many rows.

    A `Step` reads and writes at fixed addresses. On a CUDA device it is captured for each size by
    `capture` and replayed by `run`; elsewhere `run` calls it. All graphs share one memory pool,
    which is right because they run one after the other. No step is kept, so that whoever has both
    it and the graphs is freed, with the KV cache, when nobody needs it any more.
    """

    def __init__(self, sizes: Sequence[int], device: torch.device) -> None:
        """`sizes` are ascending."""
        self.sizes = list(sizes)
        self._device = device
        self._captured: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def size_for(self, rows: int) -> int:
        """The smallest size with room for `rows`."""
        return next(size for size in self.sizes if size >= rows)

    def capture(self, step: Step) -> None:
        """Capture every size, the largest first: the others find room in its memory."""
        if self._device.type != "cuda":
            return
        pool = torch.cuda.graph_pool_handle()
        for size in reversed(self.sizes):
            step(size)  # compiles, and lets libraries take what memory they want
            torch.cuda.synchronize(self._device)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool):
                sampled = step(size)
            self._captured[size] = graph, sampled

    def run(self, rows: int, step: Step) -> Tensor:
        """Launch the iteration; the tokens of its `rows` rows, right until the next `run`."""
        size = self.size_for(rows)
        if size not in self._captured:
            return step(size)[:rows]
        graph, sampled = self._captured[size]
        graph.replay()
        return sampled[:rows]
