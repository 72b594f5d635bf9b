"""What the attention kernels take on the GPU at hand, as Markdown:

    python tests/benchmarks/attention_kernels.py

Medians of CUDA graph replays over shuffled blocks and rotating caches. A decode graph is an
iteration of 32 layers: the plan is built once, on the device, and its time is in the figures.
"""

import contextlib
import platform
from collections.abc import Callable, Sequence
from typing import Any

import torch
import triton
from kernel_batches import (
    CACHES,
    DECODES,
    HEAD_DIM,
    KV_HEADS,
    PREFILLS,
    TOKEN_BYTES,
    Pool,
    block_table,
)
from kernel_timing import Ceilings, graph_seconds, measure_ceilings
from torch.nn.attention import SDPBackend, sdpa_kernel

from schedsim.kernels.decode import contiguous_decode, paged_decode
from schedsim.kernels.decode_plan import DecodePlan
from schedsim.kernels.mixed import paged_attention
from schedsim.kernels.prefill import contiguous_prefill, paged_prefill
from schedsim.kernels.prefill_plan import PrefillPlan

LAYERS = 32
SCALE = HEAD_DIM**-0.5
BRAIN = torch.bfloat16
BACKENDS = (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION)


def random_query(tokens: int, heads: int) -> torch.Tensor:
    return torch.randn(tokens, heads, HEAD_DIM, device="cuda", dtype=BRAIN)


def decode_seconds(
    pool: Pool,
    lengths: list[int],
    heads: int,
    block_size: int,
    *,
    shuffled: bool = True,
    paged: bool = True,
) -> float:
    """A layer's decode, a share of the plan included."""
    plan = DecodePlan(len(lengths), heads, KV_HEADS, HEAD_DIM, dtype=BRAIN, device="cuda")
    context_lengths = torch.tensor(lengths, dtype=torch.int32, device="cuda")
    table = block_table(lengths, block_size, shuffled=shuffled and paged)
    blocks = table if paged else table[:, 0].contiguous()
    run = paged_decode if paged else contiguous_decode
    query = random_query(len(lengths), heads)
    output = torch.empty_like(query)

    def layer(index: int) -> None:
        run(query, *pool.caches(index, block_size), blocks, plan, scale=SCALE, output=output)

    calls: list[Callable[[], Any]] = [lambda: plan.build(context_lengths)]
    calls += [lambda index=index: layer(index) for index in range(LAYERS)]  # type: ignore[misc]
    return graph_seconds(calls) / LAYERS


def prefill_seconds(
    pool: Pool,
    lengths: list[int],
    block_size: int,
    *,
    shuffled: bool = True,
    paged: bool = True,
) -> float:
    """A layer's causal prefill of whole prompts, 32 query heads."""
    plan = PrefillPlan(lengths, lengths, 32, KV_HEADS, HEAD_DIM, dtype=BRAIN, device="cuda")
    table = block_table(lengths, block_size, shuffled=shuffled and paged)
    blocks = table if paged else table[:, 0].contiguous()
    run = paged_prefill if paged else contiguous_prefill
    query = random_query(sum(lengths), 32)
    output = torch.empty_like(query)

    def layer(index: int) -> None:
        run(query, *pool.caches(index, block_size), blocks, plan, scale=SCALE, output=output)

    calls = [lambda index=index: layer(index) for index in range(CACHES)]  # type: ignore[misc]
    return graph_seconds(calls, replays=11) / CACHES


def prefill_flops(lengths: list[int]) -> int:
    """Of the causal half, 32 query heads."""
    return sum(2 * 32 * HEAD_DIM * length * (length + 1) for length in lengths)


def sdpa_seconds(lengths: list[int], queries: int) -> float:
    """torch's best backend on contiguous keys and values: `queries` of each sequence, causal."""
    sequences, length = len(lengths), lengths[0]
    shape = (2, sequences, KV_HEADS, length, HEAD_DIM)
    stores = [torch.randn(shape, device="cuda", dtype=BRAIN) for _ in range(3)]
    query = torch.randn(sequences, 32, queries, HEAD_DIM, device="cuda", dtype=BRAIN)
    times = []
    for backend in BACKENDS:
        with sdpa_kernel(backend), contextlib.suppress(RuntimeError):
            calls = [
                lambda store=store: torch.nn.functional.scaled_dot_product_attention(
                    query, store[0], store[1], is_causal=queries > 1, enable_gqa=True
                )
                for store in stores
            ]  # type: ignore[misc]
            times.append(graph_seconds(calls * 4, replays=9) / 12)
    return min(times)


def table_of(title: str, header: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    print(f"\n### {title}\n\n| " + " | ".join(header) + " |")
    print("|---" * len(header) + "|")
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |", flush=True)


def decodes(pool: Pool, ceilings: Ceilings) -> None:
    rows = []
    for heads in (32, 16):
        for name, lengths in DECODES.items():
            seconds = decode_seconds(pool, lengths, heads, 16)
            gbps = sum(lengths) * TOKEN_BYTES / seconds / 1e9
            share = gbps / ceilings.read_gbps
            rows.append((heads, name, f"{seconds * 1e6:.1f}", f"{gbps:.0f}", f"{share:.3f}"))
    header = ("query heads", "batch", "µs", "GB/s of KV", "of the read ceiling")
    table_of("Decode, block size 16, 8 KV heads, a layer of a 32-layer iteration", header, rows)


def prefills(pool: Pool, ceilings: Ceilings) -> None:
    rows = []
    for block_size in (16, 32, 64, 128):
        for name, lengths in PREFILLS.items():
            seconds = prefill_seconds(pool, lengths, block_size)
            tflops = prefill_flops(lengths) / seconds / 1e12
            share = tflops / ceilings.gemm_tflops
            rows.append((block_size, name, f"{seconds * 1e6:.0f}", f"{tflops:.0f}", f"{share:.3f}"))
    header = ("block size", "batch", "µs", "TFLOP/s", "of the GEMM ceiling")
    table_of("Prefill, causal, 32 query heads", header, rows)


def mixed(pool: Pool) -> None:
    rows = []
    for block_size in (16, 128):
        lengths = [1024] * 64 + [8192]
        table = block_table(lengths, block_size)
        query = random_query(64 + 512, 32)
        plan = DecodePlan(64, 32, KV_HEADS, HEAD_DIM, dtype=BRAIN, device="cuda")
        plan.build(lengths[:64])
        chunk = PrefillPlan([512], [8192], 32, KV_HEADS, HEAD_DIM, dtype=BRAIN, device="cuda")
        riding = PrefillPlan(
            [1] * 64 + [512], lengths, 32, KV_HEADS, HEAD_DIM, dtype=BRAIN, device="cuda"
        )

        def timed(run: Any, *arguments: Any, rows: slice, size: int = block_size) -> float:
            calls = [
                lambda index=index: run(
                    query[rows], *pool.caches(index, size), *arguments, scale=SCALE
                )
                for index in range(CACHES)
            ]  # type: ignore[misc]
            return graph_seconds(calls) / CACHES * 1e6

        together = timed(paged_attention, table, plan, chunk, rows=slice(None))
        one = timed(paged_prefill, table, riding, rows=slice(None))
        parts = timed(paged_decode, table[:64], plan, rows=slice(64))
        parts += timed(paged_prefill, table[64:], chunk, rows=slice(64, None))
        rows.append(
            (block_size, f"{parts:.0f}", f"{together:.0f} ({together / parts:.2f})",
             f"{one:.0f} ({one / parts:.2f})")
        )  # fmt: skip
    header = ("block size", "parts apart, µs", "paged_attention", "one paged_prefill")
    table_of("Mixed: 512 queries at 8k and 64 decodes at 1k", header, rows)


def paging(pool: Pool) -> None:
    for kind, batches, seconds in (
        ("decode", DECODES, lambda *a, **k: decode_seconds(pool, a[0], 32, a[1], **k)),
        ("prefill", PREFILLS, lambda *a, **k: prefill_seconds(pool, *a, **k)),
    ):
        rows = []
        for name, lengths in batches.items():
            for block_size in (16, 32, 64, 128):
                without = seconds(lengths, block_size, paged=False)
                ratios = [
                    seconds(lengths, block_size, shuffled=shuffled) / without
                    for shuffled in (False, True)
                ]
                costs = [f"{(ratio - 1) * 100:+.1f} %" for ratio in ratios]
                rows.append((name, block_size, f"{without * 1e6:.1f}", *costs))
        header = ("batch", "block size", "contiguous, µs", "sequential table", "shuffled table")
        table_of(f"What the look-up costs: {kind}, the same code", header, rows)
    rows = []
    for name, lengths in {**DECODES, **PREFILLS}.items():
        if len(set(lengths)) > 1:
            continue
        is_decode = name in DECODES
        best = sdpa_seconds(lengths, 1 if is_decode else lengths[0])
        row = [name, f"{best * 1e6:.1f}"]
        for block_size in (16, 32, 64, 128):
            ours = (
                decode_seconds(pool, lengths, 32, block_size)
                if is_decode
                else prefill_seconds(pool, lengths, block_size)
            )
            row.append(f"{ours * 1e6:.1f} ({(ours / best - 1) * 100:+.1f} %)")
        rows.append(tuple(row))
    sizes = tuple(f"paged, block {size}" for size in (16, 32, 64, 128))
    table_of("Against torch's best contiguous backend, µs", ("batch", "SDPA", *sizes), rows)


def main() -> None:
    torch.manual_seed(0)
    ceilings = measure_ceilings()
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, Triton {triton.__version__}, "
        f"CUDA {torch.version.cuda}, Python {platform.python_version()}. Ceilings of this run: "
        f"read {ceilings.read_gbps:.0f} GB/s, copy {ceilings.copy_gbps:.0f} GB/s, "
        f"GEMM {ceilings.gemm_tflops:.0f} TFLOP/s."
    )
    pool = Pool.random()
    decodes(pool, ceilings)
    prefills(pool, ceilings)
    mixed(pool)
    paging(pool)


if __name__ == "__main__":
    main()
