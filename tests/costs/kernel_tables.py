"""Small kernel tables for tests: a folder as the profiler writes it, with times that ascend."""

from itertools import product
from pathlib import Path

from schedsim.costs import TableOptions, TablesCost, load_model, load_tables
from schedsim.costs.table_files import IN_EACH_LAYER, ONCE, PER_SEQUENCE

MODEL = "llama-3.1-8b"
TOKENS = (1, 2, 8, 32, 128)
SEQUENCES = (1, 4, 16)
CHUNKS, PREFILL_CONTEXTS = (8, 32, 128), (0, 64, 256)
DECODES, CONTEXTS = (1, 4, 16), (16, 128, 1024)

SKEW_ROWS = [
    f"{pc},{n},{share},{big},{prefill},{alpha},4"
    for pc, prefill in ((0, "kp=0"), (8, "kp=0"), (8, "kp<=64"), (128, "kp=0"))
    for n, share, big, alpha in (
        ("n<=4", "sr<=15%", "kvB<=1k", 0.25),
        ("n<=4", "sr>15%", "kvB<=1k", -0.5),
        ("n<=16", "sr<=15%", "kvB<=1k", 0.5),
        ("n<=16", "sr>15%", "kvB<=1k", 3.0),
        ("n<=16", "sr>15%", "kvB>1k", 0.75),
    )
]


def lines() -> dict[str, list[str]]:
    """The lines of each file, the first its header."""
    kernels = enumerate([*IN_EACH_LAYER, *ONCE], start=1)
    dense = [f"{kernel},{n},{10 * k + 0.3 * k * n}" for k, kernel in kernels for n in TOKENS]
    sequences = [
        f"{kernel},{n},{100 * k + 1.7 * n}"
        for k, kernel in enumerate(PER_SEQUENCE, start=1)
        for n in SEQUENCES
    ]
    alone = [
        f"{c},{p},0,0,{5 + 0.1 * c + 0.001 * c * p}" for c, p in product(CHUNKS, PREFILL_CONTEXTS)
    ]
    decode = [f"0,0,{n},{k},{3 + 0.02 * n * k}" for n, k in product(DECODES, CONTEXTS)]
    both = [
        f"{c},{p},{n},{k},{7 + 0.1 * c + 0.001 * c * p + 0.03 * n * k}"
        for c, p, n, k in product(CHUNKS, PREFILL_CONTEXTS, DECODES, CONTEXTS)
    ]
    return {
        "dense.csv": ["layer,tokens,time_us", *dense],
        "per_sequence.csv": ["layer,sequences,time_us", *sequences],
        "attention.csv": [
            "prefill_chunk,kv_prefill,n_decode,kv_decode,time_us",
            *alone,
            *decode,
            *both,
        ],
        "skew_fit.csv": [
            "pc,n_label,skew_rate_label,kv_big_label,kp_label,alpha,n_samples",
            *SKEW_ROWS,
        ],
    }


def write_tables(folder: Path, changed: dict[str, list[str]] | None = None) -> Path:
    """Write the files, some of them with other lines; without any a file is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {**lines(), **(changed or {})}.items():
        if content:
            (folder / name).write_text("\n".join(content) + "\n")
    return folder


def small_tables(folder: Path, *, graphs: int = 0, skew: bool = False) -> TablesCost:
    """The step-time model of these tables, written to `folder`, for the layers of `MODEL`."""
    options = TableOptions(str(write_tables(folder)), graphs, skew)
    return load_tables(options, load_model(MODEL), 1)
