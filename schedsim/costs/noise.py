"""`StepNoise`: how repeats of measured iterations scattered around their mean, drawn again."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

_AT_ONCE = 4096


class StepNoise:
    """Factors on the step time of iterations, one an iteration, drawn from quantiles by its kind.

    Which factor an iteration gets follows from its number alone, so it is the same however many are
    asked for at once. Draws of neighbours are independent, which those of a device need not be.
    """

    def __init__(self, quantiles: Mapping[str, Sequence[float]], rng: np.random.Generator) -> None:
        """`quantiles` are, for each kind of batch, factors at evenly spaced ranks, one at least.

        A kind that is not in them has no noise. Nobody else may draw from `rng`.
        """
        self._quantiles = {kind: np.array(values) for kind, values in quantiles.items()}
        self._rng = rng
        self._ranks = np.empty(0)

    def factor(self, kind: str, iteration: int) -> float:
        """The factor of one iteration, counted from 0."""
        return float(self.factors(kind, iteration, 1)[0])

    def factors(self, kind: str, first: int, iterations: int) -> Floats:
        """Those of so many iterations of one kind, from number `first` on."""
        if kind not in self._quantiles:
            return np.ones(iterations)
        missing = first + iterations - len(self._ranks)
        if missing > 0:
            drawn = self._rng.random(max(missing, _AT_ONCE, len(self._ranks)))
            self._ranks = np.append(self._ranks, drawn)
        values = self._quantiles[kind]
        ranks = self._ranks[first : first + iterations] * (len(values) - 1)
        below = np.minimum(ranks.astype(np.int64), max(len(values) - 2, 0))
        above = np.minimum(below + 1, len(values) - 1)
        factors: Floats = values[below] + (values[above] - values[below]) * (ranks - below)
        return factors
