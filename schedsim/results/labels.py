"""`LABELS`: what figures are called in tables."""

LABELS = {
    "makespan_s": ("makespan (s)", "seconds"),
    "requests_per_s": ("requests/s", "rate"),
    "output_tokens_per_s": ("output tokens/s", "rate"),
    "total_tokens_per_s": ("total tokens/s", "rate"),
    "ttft_s.mean": ("TTFT mean (s)", "seconds"),
    "ttft_s.p50": ("TTFT p50 (s)", "seconds"),
    "ttft_s.p90": ("TTFT p90 (s)", "seconds"),
    "ttft_s.p99": ("TTFT p99 (s)", "seconds"),
    "tpot_s.mean": ("TPOT mean (ms)", "milliseconds"),
    "tpot_s.p50": ("TPOT p50 (ms)", "milliseconds"),
    "tpot_s.p90": ("TPOT p90 (ms)", "milliseconds"),
    "tpot_s.p99": ("TPOT p99 (ms)", "milliseconds"),
    "itl_s.mean": ("ITL mean (ms)", "milliseconds"),
    "itl_s.p50": ("ITL p50 (ms)", "milliseconds"),
    "itl_s.p90": ("ITL p90 (ms)", "milliseconds"),
    "itl_s.p99": ("ITL p99 (ms)", "milliseconds"),
    "e2e_s.mean": ("end to end mean (s)", "seconds"),
    "e2e_s.p50": ("end to end p50 (s)", "seconds"),
    "e2e_s.p90": ("end to end p90 (s)", "seconds"),
    "e2e_s.p99": ("end to end p99 (s)", "seconds"),
    "preemptions": ("preemptions", "count"),
    "batch_size": ("requests at once", "rate"),
    "memory_used": ("KV used", "share"),
    "memory_reserved": ("KV reserved", "share"),
}
"""How a table calls each figure, by the name that `validate` and `compare` give it, and its unit
(`format_figure`)."""
