"""Times kernels by replaying CUDA graphs, and measures the ceilings to hold the times against."""

import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl

REPLAYS = 21


class Ceilings(NamedTuple):
    """What the device does best, measured now: GB/s read, GB/s copied (both ways), TFLOP/s."""

    read_gbps: float
    copy_gbps: float
    gemm_tflops: float


def capture(calls: Sequence[Callable[[], Any]]) -> torch.cuda.CUDAGraph:
    """A graph of `calls`, which have been made once before, so that everything is compiled."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for call in calls:
            call()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for call in calls:
            call()
    return graph


def graph_seconds(calls: Sequence[Callable[[], Any]], replays: int = REPLAYS) -> float:
    """The median time of one replay of a graph of `calls`."""
    graph = capture(calls)
    times = []
    for _ in range(3):
        graph.replay()
    for _ in range(replays):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times)


@triton.jit
def read_kernel(source, sink, per_program, TILE: tl.constexpr):
    """Reads `per_program` tiles and adds them up; writes one number."""
    elements = tl.arange(0, TILE)
    total = tl.zeros([TILE], tl.int32)
    base = source + tl.program_id(0).to(tl.int64) * per_program * TILE
    for tile in tl.range(0, per_program, num_stages=4):
        total += tl.load(base + tile * TILE + elements)
    tl.store(sink + tl.program_id(0), tl.sum(total))


@triton.jit
def copy_kernel(source, target, TILE: tl.constexpr):
    elements = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    tl.store(target + elements, tl.load(source + elements))


def measure_ceilings() -> Ceilings:
    """Read and copy 4 GiB, multiply 8192³ in bf16 on random data: the best of a few ways each."""
    elements = 2**30
    source = torch.randint(0, 99, (elements,), dtype=torch.int32, device="cuda")
    target = torch.empty_like(source)
    sink = torch.empty(elements // 8192, dtype=torch.int32, device="cuda")
    reads, copies = [], [graph_seconds([lambda: target.copy_(source)])]
    for tile, per_program in ((4096, 8), (4096, 32), (8192, 16)):
        programs = elements // (tile * per_program)
        reads.append(
            graph_seconds(
                [
                    lambda programs=programs, per=per_program, tile=tile: read_kernel[(programs,)](
                        source, sink, per, TILE=tile
                    )
                ]
            )
        )
        copies.append(
            graph_seconds(
                [lambda tile=tile: copy_kernel[(elements // tile,)](source, target, TILE=tile)]
            )
        )
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    gemm = graph_seconds([lambda: a @ b] * 4) / 4
    return Ceilings(
        4 * elements / min(reads) / 1e9, 8 * elements / min(copies) / 1e9, 2 * 8192**3 / gemm / 1e12
    )
