"""Made-up iterations whose times are known."""

from dataclasses import fields

import numpy as np
import numpy.typing as npt

from schedsim.costs.fitted import COUNTS, Coefficients, Parts
from schedsim.experiments.iterations import Iterations
from schedsim.scheduler.batch import BatchShape

TRUE = Parts(
    host=Coefficients(base=2e-4, decode_requests=1e-5),
    device=Coefficients(
        base=5e-3,
        prefill_requests=2e-4,
        prefill_tokens=6e-5,
        prefill_attention=2e-9,
        decode_requests=3e-5,
        decode_context=5e-8,
        swapped_blocks=1e-5,
        copied_blocks=2e-6,
    ),
    gap=Coefficients(base=1e-4, sampled=5e-6),
)


def made_up(size: int = 600, seed: int = 0, noise: float = 0.0, parts: Parts = TRUE) -> Iterations:
    """Iterations of a busy engine that take `parts` and, relatively, `noise` more or less.

    Every tenth has no gap, as before an idle engine.
    """
    rng = np.random.default_rng(seed)
    decodes = rng.integers(0, 60, size)
    chunks = np.where(decodes == 0, 1, rng.integers(0, 4, size))
    tokens = chunks * rng.integers(1, 400, size)
    values: dict[str, npt.NDArray[np.float64]] = {
        "prefill_requests": chunks,
        "prefill_tokens": tokens,
        "prefill_attention": tokens * rng.integers(1, 3000, size),
        "decode_requests": decodes,
        "decode_context": decodes * rng.integers(10, 2000, size),
        "sampled": decodes + rng.integers(0, chunks + 1),
        "swapped_blocks": rng.integers(0, 2, size) * rng.integers(0, 90, size),
        "copied_blocks": rng.integers(0, 2, size) * rng.integers(0, 700, size),
    }
    counts = np.column_stack([values[name] for name in COUNTS]).astype(np.float64)
    nothing = np.zeros(size)
    sizes = [values.get(field.name, nothing) for field in fields(BatchShape)]

    def seconds(part: Coefficients) -> npt.NDArray[np.float64]:
        exact = part.base + counts @ [getattr(part, name) for name in COUNTS]
        return np.asarray(exact * (1 + noise * rng.standard_normal(size)))

    gap = seconds(parts.gap)
    gap[::10] = np.nan
    host, device = seconds(parts.host), seconds(parts.device)
    hidden = np.zeros(size, dtype=np.bool_)
    return Iterations(counts, np.column_stack(sizes), host, device, gap, hidden, np.arange(size))
