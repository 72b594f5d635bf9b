"""Where the kernels run: on the GPU if there is one, else in Triton's interpreter.

The interpreter is chosen by a variable that Triton reads when it is imported; so these tests want
a process in which nobody has imported it yet, and are skipped, saying so, in another.
"""

import os
import sys
from importlib.util import find_spec

import pytest

HAVE_BOTH = find_spec("torch") is not None and find_spec("triton") is not None
ALREADY_IMPORTED = "triton" in sys.modules


def has_gpu() -> bool:
    import torch

    return bool(torch.cuda.is_available())


if HAVE_BOTH and not has_gpu():
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(autouse=True)
def _interpreter_where_there_is_no_gpu() -> None:
    if ALREADY_IMPORTED and not has_gpu():
        pytest.skip("triton was imported before; run `pytest tests/kernels` by itself")


@pytest.fixture
def device() -> str:
    return "cuda" if has_gpu() else "cpu"
