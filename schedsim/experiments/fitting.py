"""A fitted step time from iterations: which pieces a count may have, and how steep they are.

Every feature of a batch costs a piecewise straight line that never falls, because hardware has
pieces: weights are read once for any number of tokens up to some hundred, then arithmetic takes
over; products are computed in tiles; the first chunk of a batch brings kernels of its own; a short
context is read by one program.
Where the iterations do not tell two pieces apart they get one slope.
"""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from schedsim.costs.curves import pieces
from schedsim.costs.features import FEATURES, HEATED
from schedsim.costs.fitted_file import Part, Parts, Term
from schedsim.experiments.iterations import Iterations
from schedsim.experiments.least_squares import robust_nonnegative
from schedsim.experiments.regions import sizes_of

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

KNOTS: dict[str, tuple[int, ...]] = {
    "decode_requests": (1, 8, 32, 128),
    "prefill_tokens": (64, 256, 1024, 4096),
    "decode_context": (1024, 4096, 16384, 65536),
    "prefill_span": (1024, 4096, 16384),
    "prefill_attention": (1 << 16, 1 << 20, 1 << 24),
    "prefill_requests": (1, 4, 16),
    "prefill_context": (4096, 32768),
    "swapped_blocks": (1, 64, 512),
    "copied_blocks": (1, 64, 512),
    "sampled": (1, 16, 128),
    "launched": (),
    "longest_context": (1024, 4096, 16384),
    "mixed_context": (4096, 65536),
    "tokens": (1, 8, 16, 32, 64, 128, 192, 256, 512, 1024, 2048, 4096, 8192, 16384),
    "tiles": (*range(1, 17), 24, 32, 64),
}
"""Where the slope of each feature may change, beside 0; 1 sets apart what any of it costs.

The order is that in which features are believed: of features that always go together in the
iterations, the first keeps the cost of all.
"""

LEAST_BEYOND = 3
"""Iterations beyond a knot without which it is left out."""

STRAIGHT = (1e-5, 1e-3, 1e-1)
"""How much neighbouring pieces want one slope, to choose from: as much as this share of the
iterations, each off by what the difference makes over a piece."""

_PRICE = 1e-11
"""What a coefficient costs for each unit of relative time that it brings, times its place: so small
that it only decides between coefficients that the iterations do not tell apart."""

_TIE = 1e-13
"""How much every coefficient wants to be 0, as a share of the iterations: for a single solution."""

_DIGITS = 9
_NOTHING = 1e-9  # of the median iteration: rounding, not cost
_ONE_SLOPE = 1e-6


def fit(
    iterations: Iterations, straight: float = STRAIGHT[0], factor: Floats | None = None
) -> Parts:
    """The parts that fit best; errors count relative to the fitted whole of an iteration.

    The device's time of `HEATED` features counts `factor` times in each iteration, 1 by default.
    Needs scipy (`require_scipy`). Deterministic.
    """
    period = iterations.period
    least = max(1e-3 * float(np.median(period)), 1e-12)
    everywhere = np.ones(len(iterations), dtype=np.bool_)
    repeats = sizes_of(iterations)
    whole = _fit_part(iterations, period, everywhere, None, repeats, straight, factor)
    scale = np.maximum(seconds_of(whole, iterations.terms, factor), least)
    host, gap = iterations.host, iterations.gap
    return Parts(
        host=_fit_part(iterations, host, ~np.isnan(host), scale, repeats, straight),
        device=_fit_part(
            iterations, iterations.device, everywhere, scale, repeats, straight, factor
        ),
        gap=_fit_part(iterations, gap, ~np.isnan(gap), scale, repeats, straight),
    )


def fitted_periods(parts: Parts, iterations: Iterations, factor: Floats | None = None) -> Floats:
    """Seconds that each iteration adds by the fit; no gap where none was measured."""
    terms = iterations.terms
    host, gap = seconds_of(parts.host, terms), seconds_of(parts.gap, terms)
    return iterations.added(host, seconds_of(parts.device, terms, factor), gap)


def seconds_of(part: Part, terms: Mapping[str, Floats], factor: Floats | None = None) -> Floats:
    """A part of the step time of each iteration, whose features are the columns `terms`; what those
    of `HEATED` take counts `factor` times."""
    total = np.full(len(next(iter(terms.values()))), part.base)
    for name in FEATURES:
        if name in part.terms:
            term = part.terms[name]
            told = pieces(terms[name], term.knots) @ np.array(term.slopes)
            total += told if factor is None or name not in HEATED else told * factor
    return total


def _fit_part(
    iterations: Iterations,
    target: Floats,
    rows: npt.NDArray[np.bool_],
    scale: Floats | None,
    repeats: Ints,
    straight: float,
    factor: Floats | None = None,
) -> Part:
    """The part that takes `target` seconds in those `rows`, with errors in units of `scale`."""
    if not target[rows].any():
        return Part()
    terms = {name: iterations.terms[name][rows] for name in KNOTS}
    knots = {name: _knots_of(name, column) for name, column in terms.items() if column.any()}
    columns = [np.ones((int(rows.sum()), 1))]
    for name, found in knots.items():
        column = pieces(terms[name], found)
        if factor is not None and name in HEATED:
            column *= factor[rows, None]
        columns.append(column)
    unit = float(np.median(target[rows] if scale is None else scale[rows]))
    matrix = np.column_stack(columns)
    prior = _prior(knots, terms, matrix, max(unit, 1e-12), straight)
    sizes = np.linalg.norm(matrix, axis=0) * np.sqrt(len(matrix)) / max(unit, 1e-12)
    price = _PRICE * sizes * np.arange(matrix.shape[1])
    slopes = robust_nonnegative(
        matrix,
        target[rows],
        None if scale is None else scale[rows],
        prior,
        price,
        repeats[rows],
    )
    return _part_of(slopes, knots, terms, max(unit, 1e-12))


def _knots_of(name: str, column: Floats) -> list[float]:
    """0 and the knots beyond which there are iterations enough."""
    beyond = np.sort(column)
    return [
        0.0,
        *(
            float(knot)
            for knot in KNOTS[name]
            if len(beyond) - int(np.searchsorted(beyond, knot, side="right")) >= LEAST_BEYOND
        ),
    ]


def _prior(
    knots: Mapping[str, list[float]],
    terms: Mapping[str, Floats],
    matrix: Floats,
    unit: float,
    straight: float,
) -> Floats:
    """Rows that are small if neighbouring slopes are alike and coefficients not needed are 0."""
    count, width = matrix.shape
    rows = []
    place = 1
    for name, found in knots.items():
        ends = [*found[1:], max(float(terms[name].max()), found[-1] + 1)]
        widths = [end - start for start, end in zip(found, ends, strict=True)]
        wish = min(STRAIGHT) if name == "tiles" else straight  # every tile is its own
        for piece in range(len(found) - 1):
            row = np.zeros(width)
            row[place + piece : place + piece + 2] = -1.0, 1.0
            shorter = min(widths[piece], widths[piece + 1])
            rows.append(row * shorter * np.sqrt(wish * count) / unit)
        place += len(found)
    sizes = np.linalg.norm(matrix, axis=0) / unit
    ties = np.diag(np.sqrt(_TIE) * sizes)
    return np.vstack([*rows, ties])


def _part_of(
    slopes: Floats, knots: Mapping[str, list[float]], terms: Mapping[str, Floats], unit: float
) -> Part:
    """The part with these coefficients; what costs nothing is left out, equal pieces are one."""
    base = rounded(float(slopes[0]))
    found: dict[str, Term] = {}
    place = 1
    for name, places in knots.items():
        own = slopes[place : place + len(places)]
        place += len(places)
        cost = pieces(terms[name].max(keepdims=True), places)[0] * own
        if cost.sum() < _NOTHING * unit:
            continue
        term = _merged(places, [rounded(float(slope)) for slope in own])
        found[name] = term
    ordered = {name: found[name] for name in FEATURES if name in found}
    return Part(base=base if base > _NOTHING * unit else 0.0, terms=ordered)


def _merged(knots: list[float], slopes: list[float]) -> Term:
    kept_knots, kept_slopes = [knots[0]], [slopes[0]]
    for knot, slope in zip(knots[1:], slopes[1:], strict=True):
        if abs(slope - kept_slopes[-1]) > _ONE_SLOPE * kept_slopes[-1]:
            kept_knots.append(knot)
            kept_slopes.append(slope)
    return Term(knots=kept_knots, slopes=kept_slopes)


def rounded(value: float) -> float:
    """A coefficient as a file has it."""
    return float(f"{value:.{_DIGITS}g}")
