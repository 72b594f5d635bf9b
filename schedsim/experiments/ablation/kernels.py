"""The attention kernels as step-time specs, from what was measured of our own on an H100.

docs/paging-or-scheduling.md derives each number from the tables of docs/kernel-timings.md and
docs/gpu-timings.md, and a test holds them to these.
"""

_COMMON = (
    "bandwidth_efficiency=0.778,compute_efficiency=0.625,overhead_ms=0.3,"
    "request_overhead_ms=0.0052,copy_gb_per_s=116.3"
)

BLOCK_SIZE = 16

PAGED = f"roofline,{_COMMON},kv_efficiency=0.871,attention_efficiency=0.36"
"""Our kernels with a block table, blocks of `BLOCK_SIZE` tokens in no order."""

CONTIGUOUS = f"roofline,{_COMMON},kv_efficiency=0.891,attention_efficiency=0.37"
"""The same code without the table."""

LIBRARY = f"roofline,{_COMMON},kv_efficiency=0.891,attention_efficiency=0.554"
"""The best contiguous kernel that torch brings, which is faster in prefills."""

NAMED = {"paged": PAGED, "contiguous": CONTIGUOUS, "library": LIBRARY}
"""What stands for these specs where a step time is asked for."""


def step_time(name: str) -> str:
    """The spec that `name` stands for; any other is one itself."""
    return NAMED.get(name, name)
