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


def measure_ceilings() -> Ceilings:
    """Read and copy 2 GiB, multiply 8192³ in bf16 on random data."""
    num_programs, per_program, tile = 4096, 64, 2048
    source = torch.randint(0, 99, (num_programs * per_program * tile,), dtype=torch.int32).cuda()
    sink = torch.empty(num_programs, dtype=torch.int32, device="cuda")
    size = source.numel() * 4
    read = graph_seconds(
        [lambda: read_kernel[(num_programs,)](source, sink, per_program, TILE=tile)]
    )
    target = torch.empty_like(source)
    copy = graph_seconds([lambda: target.copy_(source)])
    a, b = (torch.randn(8192, 8192, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    gemm = graph_seconds([lambda: a @ b] * 4) / 4
    return Ceilings(size / read / 1e9, 2 * size / copy / 1e9, 2 * 8192**3 / gemm / 1e12)
