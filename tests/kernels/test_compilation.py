"""Every kernel compiles for sm_90 and sm_80 without a GPU, without spills, within shared memory."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("triton")

from tests.kernels.compilation import SHARED_LIMITS, Usage

ROOT = Path(__file__).resolve().parents[2]
SHARES = 2


def compile_share(capability: int, share: int) -> list[Usage]:
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.kernels.compile_all", str(capability), f"{share}/{SHARES}"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [Usage(**usage) for usage in json.loads(done.stdout.splitlines()[-1])]


@pytest.mark.parametrize("capability", sorted(SHARED_LIMITS))
def test_every_kernel_compiles_without_spills(capability: int) -> None:
    with ThreadPoolExecutor(SHARES) as pool:
        shares = pool.map(lambda share: compile_share(capability, share), range(SHARES))
    usages = [usage for share in shares for usage in share]
    kernels = {usage.kernel for usage in usages}
    assert kernels == {
        "decode_plan_kernel", "decode_kernel", "prefill_kernel", "write_kv_kernel",
        "rms_norm_kernel", "silu_and_mul_kernel", "sample_part_kernel", "sample_best_kernel",
        "copy_blocks_kernel", "decode_inputs_kernel",
    }  # fmt: skip
    for usage in usages:
        assert usage.stack == 0, f"spills: {usage}"
        assert usage.shared <= SHARED_LIMITS[capability], f"too much shared memory: {usage}"
        is_half = "'PRECISION': 'tf32'" in usage.constants
        if usage.kernel == "decode_kernel" and capability == 90 and is_half and usage.warps == 2:
            programs = (SHARED_LIMITS[capability] + 1024) // (usage.shared + 1024)
            assert programs >= 2, f"the plan counts on two programs a multiprocessor: {usage}"
