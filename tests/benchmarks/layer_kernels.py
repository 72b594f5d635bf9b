"""What the other kernels take, and what paging costs a whole decode iteration, as Markdown:

    python tests/benchmarks/layer_kernels.py

The iteration is that of a model with Llama-3.1-8B's shapes and random weights: 32 layers in one
CUDA graph, the block table's copy to the device and the plan included.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import triton
from attention_kernels import table_of
from kernel_timing import Ceilings, graph_seconds, measure_ceilings

from schedsim.kernels.block_copy import copy_blocks
from schedsim.kernels.decode import contiguous_decode, paged_decode
from schedsim.kernels.decode_plan import DecodePlan
from schedsim.kernels.elementwise import rms_norm, silu_and_mul
from schedsim.kernels.sampling import sample
from schedsim.kernels.write_kv import QKNorm, write_kv

BRAIN = torch.bfloat16
LAYERS, HIDDEN, MLP, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 32, 4096, 14336, 32, 8, 128, 128256
BLOCK_SIZE = 16


def tensor(*shape: int, dtype: torch.dtype = BRAIN) -> torch.Tensor:
    return torch.randn(shape, device="cuda", dtype=dtype)


def layer_kernels(ceilings: Ceilings) -> None:
    """Each kernel at 64 tokens, which is latency, and at 8192, which is memory."""
    rows = []
    for tokens in (64, 8192):
        cache = tensor(1024, 2, BLOCK_SIZE, KV_HEADS, HEAD_DIM)
        slots = torch.randperm(1024 * BLOCK_SIZE, device="cuda")[:tokens]
        cos, sin = tensor(2, tokens, HEAD_DIM // 2, dtype=torch.float32)
        weight, norm = tensor(HIDDEN), QKNorm(tensor(HEAD_DIM), tensor(HEAD_DIM), 1e-6)
        heads = HEADS + 2 * KV_HEADS
        cases: list[tuple[str, int, Callable[[list[torch.Tensor]], Any], list[int]]] = [
            ("write_kv with QK-norm and RoPE", 2 * heads * HEAD_DIM * 2 + HEAD_DIM * 4,
             lambda x: write_kv(x[0].view(tokens, heads, HEAD_DIM), cache[:, 0], cache[:, 1],
                                slots, cos, sin, norm=norm), [heads * HEAD_DIM]),
            ("rms_norm", 2 * HIDDEN * 2, lambda x: rms_norm(x[0], weight, 1e-5), [HIDDEN]),
            ("rms_norm with residual", 4 * HIDDEN * 2,
             lambda x: rms_norm(x[0], weight, 1e-5, x[1]), [HIDDEN, HIDDEN]),
            ("silu_and_mul", 3 * MLP * 2, lambda x: silu_and_mul(x[0]), [2 * MLP]),
        ]  # fmt: skip
        for name, token_bytes, run, widths in cases:
            inputs = [[tensor(tokens, width) for width in widths] for _ in range(4)]
            calls = [lambda x=x, run=run: run(x) for x in inputs]  # type: ignore[misc]
            seconds = graph_seconds(calls * 4) / 16
            gbps = tokens * token_bytes / seconds / 1e9
            share = gbps / ceilings.copy_gbps
            rows.append((name, tokens, f"{seconds * 1e6:.1f}", f"{gbps:.0f}", f"{share:.2f}"))
    for batch in (1, 64):
        logits = [tensor(batch, VOCAB) for _ in range(4)]
        seeds = torch.arange(batch, device="cuda")
        for name, temperature in (("greedy", 0.0), ("at temperature 1", 1.0)):
            temperatures = torch.full((batch,), temperature, device="cuda")
            calls = [lambda x=x, t=temperatures, s=seeds: sample(x, t, s) for x in logits]  # type: ignore[misc]
            seconds = graph_seconds(calls * 4) / 16
            gbps = batch * VOCAB * 2 / seconds / 1e9
            rows.append(
                (f"sample, {name}", batch, f"{seconds * 1e6:.1f}", f"{gbps:.0f}",
                 f"{gbps / ceilings.read_gbps:.2f} (read)")
            )  # fmt: skip
    header = ("kernel", "tokens", "µs", "GB/s", "of the copy ceiling")
    table_of("Other kernels, Llama-3.1-8B's shapes", header, rows)


def transfers(ceilings: Ceilings) -> None:
    """64 blocks of 32 layers, on the device and over the bus; events around eager calls."""
    layers = [tensor(256, 2, BLOCK_SIZE, KV_HEADS, HEAD_DIM) for _ in range(LAYERS)]
    host = [torch.empty_like(layer, device="cpu").pin_memory() for layer in layers]
    pairs = [(block, 128 + block) for block in range(64)]
    size = 64 * LAYERS * layers[0][0].numel() * 2
    plain = torch.empty(size // 2, dtype=BRAIN).pin_memory()
    flat = tensor(size // 2)
    rows = []
    for name, run, factor in (
        ("copy_blocks on the device", lambda: copy_blocks(layers, layers, pairs), 2),
        ("swap out", lambda: copy_blocks(layers, host, pairs), 1),
        ("swap in", lambda: copy_blocks(host, layers, pairs), 1),
        ("one plain copy to the host", lambda: plain.copy_(flat, non_blocking=True), 1),
        ("one plain copy from the host", lambda: flat.copy_(plain, non_blocking=True), 1),
    ):
        run()
        times = []
        for _ in range(11):
            begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
            begin.record()
            run()
            end.record()
            end.synchronize()
            times.append(begin.elapsed_time(end) / 1e3)
        seconds = sorted(times)[5]
        rows.append((name, f"{seconds * 1e6:.0f}", f"{factor * size / seconds / 1e9:.1f}"))
    table_of(f"64 blocks of {LAYERS} layers, {size / 1e6:.0f} MB", ("what", "µs", "GB/s"), rows)


class Iteration:
    """A decode iteration of a whole model over random weights and its own KV cache."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths
        batch = len(lengths)
        qkv = (HEADS + 2 * KV_HEADS) * HEAD_DIM
        shapes = ((HIDDEN, qkv), (HEADS * HEAD_DIM, HIDDEN), (HIDDEN, 2 * MLP), (MLP, HIDDEN))
        self.weights = [[tensor(*shape) / 64 for shape in shapes] for _ in range(LAYERS)]
        self.head = tensor(HIDDEN, VOCAB) / 64
        self.norm = tensor(HIDDEN)
        counts = [-(-length // BLOCK_SIZE) for length in lengths]
        self.caches = [
            tensor(sum(counts), 2, BLOCK_SIZE, KV_HEADS, HEAD_DIM) for _ in range(LAYERS)
        ]
        self.hidden = tensor(batch, HIDDEN)
        self.cos, self.sin = tensor(2, batch, HEAD_DIM // 2, dtype=torch.float32)
        self.context_lengths = torch.tensor(lengths, dtype=torch.int32, device="cuda")
        self.plan = DecodePlan(batch, HEADS, KV_HEADS, HEAD_DIM, dtype=BRAIN, device="cuda")
        starts = torch.tensor(counts).cumsum(0) - torch.tensor(counts)
        self.first_blocks = starts.int().cuda()
        self.host_table = self._table(counts, torch.randperm(sum(counts)))
        self.table = self.host_table.cuda()
        self.temperatures = torch.zeros(batch, device="cuda")
        self.seeds = torch.zeros(batch, dtype=torch.int64, device="cuda")

    @staticmethod
    def _table(counts: list[int], ids: torch.Tensor) -> torch.Tensor:
        table = torch.zeros(len(counts), max(counts), dtype=torch.int32)
        start = 0
        for sequence, count in enumerate(counts):
            table[sequence, :count] = ids[start : start + count]
            start += count
        return table.pin_memory()

    def slots(self, *, paged: bool) -> torch.Tensor:
        last = torch.tensor(self.lengths) - 1
        if paged:
            blocks = self.host_table[torch.arange(len(last)), last // BLOCK_SIZE].long()
        else:
            blocks = self.first_blocks.cpu().long() + last // BLOCK_SIZE
        return (blocks * BLOCK_SIZE + last % BLOCK_SIZE).cuda()

    def run(self, slots: torch.Tensor, *, paged: bool, attends: bool = True) -> None:
        if paged:
            self.table.copy_(self.host_table, non_blocking=True)
        self.plan.build(self.context_lengths)
        hidden, residual = self.hidden, torch.zeros_like(self.hidden)
        for cache, (qkv, out, gate_up, down) in zip(self.caches, self.weights, strict=True):
            normed = rms_norm(hidden, self.norm, 1e-5, residual)
            projected = (normed @ qkv).view(len(hidden), -1, HEAD_DIM)
            keys, values = cache[:, 0], cache[:, 1]
            query = write_kv(projected, keys, values, slots, self.cos, self.sin)
            if attends and paged:
                query = paged_decode(query, keys, values, self.table, self.plan, scale=0.088)
            elif attends:
                query = contiguous_decode(
                    query, keys, values, self.first_blocks, self.plan, scale=0.088
                )
            normed = rms_norm(query.flatten(1) @ out, self.norm, 1e-5, residual)
            hidden = silu_and_mul(normed @ gate_up) @ down
        logits = rms_norm(hidden, self.norm, 1e-5, residual) @ self.head
        sample(logits, self.temperatures, self.seeds)


def iteration_row(name: str, lengths: list[int]) -> tuple[str, ...]:
    """Paged, contiguous, and without attention."""
    model = Iteration(lengths)

    def seconds(*, paged: bool, attends: bool = True) -> float:
        slots = model.slots(paged=paged)
        run = partial(model.run, slots, paged=paged, attends=attends)
        return graph_seconds([run], replays=9)

    paged, contiguous = seconds(paged=True), seconds(paged=False)
    rest = seconds(paged=True, attends=False)
    return (
        name,
        f"{paged * 1e3:.2f}",
        f"{contiguous * 1e3:.2f}",
        f"{(paged / contiguous - 1) * 100:+.2f} %",
        f"{(1 - rest / paged) * 100:.0f} %",
    )


def iterations() -> None:
    batches = {"1×32768": [32768], "32×2048": [2048] * 32, "256×512": [512] * 256}
    rows = []
    for name, lengths in batches.items():
        rows.append(iteration_row(name, lengths))
        torch.cuda.empty_cache()
    header = ("batch", "paged, ms", "contiguous, ms", "paging costs", "attention's share")
    table_of("A whole decode iteration, block size 16, shuffled table", header, rows)


def main() -> None:
    torch.manual_seed(0)
    ceilings = measure_ceilings()
    print(
        f"{torch.cuda.get_device_name()}, torch {torch.__version__}, Triton {triton.__version__}."
    )
    layer_kernels(ceilings)
    transfers(ceilings)
    iterations()


if __name__ == "__main__":
    main()
