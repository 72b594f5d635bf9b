"""Made-up iterations whose times are known."""

from collections.abc import Callable
from dataclasses import fields

import numpy as np
import numpy.typing as npt

from schedsim.costs.features import UNPADDED, Padding, features_of_steps
from schedsim.costs.fitted_file import Part, Parts, Term
from schedsim.experiments.fitting import seconds_of
from schedsim.experiments.iterations import Iterations
from schedsim.scheduler.batch import BatchShape

Floats = npt.NDArray[np.float64]


def linear(base: float = 0.0, **slopes: float) -> Part:
    """A part with one straight line for each feature."""
    terms = {name: Term(knots=[0.0], slopes=[slope]) for name, slope in slopes.items()}
    return Part(base=base, terms=terms)


TRUE = Parts(
    host=linear(2e-4, decode_requests=1e-5),
    device=linear(
        5e-3,
        prefill_requests=2e-4,
        prefill_tokens=6e-5,
        prefill_attention=2e-9,
        decode_requests=3e-5,
        decode_context=5e-8,
        swapped_blocks=1e-5,
        copied_blocks=2e-6,
    ),
    gap=linear(1e-4, sampled=5e-6),
)


def made_up(
    size: int = 600,
    seed: int = 0,
    noise: float = 0.0,
    parts: Parts = TRUE,
    padding: Padding = UNPADDED,
    device: Callable[[dict[str, Floats]], Floats] | None = None,
) -> Iterations:
    """Iterations of a busy engine that take `parts` and, relatively, `noise` more or less.

    Every tenth has no gap, as before an idle engine. `device` gives the device's seconds by the
    features instead.
    """
    rng = np.random.default_rng(seed)
    decodes = rng.integers(0, 60, size)
    chunks = np.where(decodes == 0, 1, rng.integers(0, 4, size))
    tokens = chunks * rng.integers(1, 400, size)
    context = decodes * rng.integers(10, 2000, size)
    before = chunks * rng.integers(0, 3000, size)
    values: dict[str, npt.NDArray[np.float64]] = {
        "prefill_requests": chunks,
        "prefill_tokens": tokens,
        "prefill_context": before,
        "prefill_attention": tokens * (before + tokens / 2),
        "prefill_longest": before + tokens,
        "decode_requests": decodes,
        "decode_context": context,
        "longest_context": np.minimum(context, 12 * context // np.maximum(decodes, 1)),
        "sampled": decodes + rng.integers(0, chunks + 1),
        "swapped_blocks": rng.integers(0, 2, size) * rng.integers(0, 90, size),
        "copied_blocks": rng.integers(0, 2, size) * rng.integers(0, 700, size),
    }
    nothing = np.zeros(size)
    sizes = {field.name: values.get(field.name, nothing) for field in fields(BatchShape)}
    columns = {**sizes, "context_tokens": context - decodes}
    features = features_of_steps(columns.__getitem__, padding)

    def scattered(exact: Floats) -> Floats:
        return np.asarray(exact * (1 + noise * rng.standard_normal(size)))

    gap = scattered(seconds_of(parts.gap, features))
    gap[::10] = np.nan
    host = scattered(seconds_of(parts.host, features))
    exact = seconds_of(parts.device, features) if device is None else device(features)
    return Iterations(
        features=np.column_stack(list(features.values())),
        sizes=np.column_stack(list(sizes.values())),
        host=host,
        device=scattered(exact),
        gap=gap,
        hidden=np.zeros(size, dtype=np.bool_),
        idle=np.where(np.isnan(gap), 1.0, gap),
        timed=np.zeros(size, dtype=np.bool_),
        row=np.arange(size),
    )
