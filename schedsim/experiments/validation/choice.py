"""`Choice`: would the simulator have picked the policy that was measured to be the best?"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from schedsim.experiments.validation.equivalence import spread_of
from schedsim.experiments.validation.kendall import kendall_tau
from schedsim.experiments.validation.metrics import is_better_low


@dataclass(frozen=True, slots=True)
class Choice:
    """Policies under one load, by one metric.

    `order` is Kendall's tau between the measured and the simulated values, None where all of one
    are equal. `regret` is what following the simulator costs, in parts of the best measured value:
    0 if its pick is the best. `spread` is the wider one of the pick and the best, None for runs
    without repeats: a regret within it may be chance.
    """

    metric: str
    measured: dict[str, float]
    simulated: dict[str, float]
    best: str
    pick: str
    regret: float
    spread: float | None
    order: float | None

    @property
    def is_real(self) -> bool:
        """Whether following the simulator cost more than the repeats differ; without repeats any
        cost counts."""
        return self.regret > (self.spread or 0.0)

    def as_json(self) -> dict[str, Any]:
        """The fields as plain data."""
        return {
            "metric": self.metric,
            "policies": {
                name: {"measured": self.measured[name], "simulated": self.simulated[name]}
                for name in self.measured
            },
            "best": self.best,
            "pick": self.pick,
            "regret": self.regret,
            "spread": self.spread,
            "kendall_tau": self.order,
        }


def choose(
    metric: str, measured: Mapping[str, Sequence[float]], simulated: Mapping[str, float]
) -> Choice:
    """The choice among policies with at least one repeat each, by name; no mean is 0.

    Of policies that simulate alike, the pick is the one that was measured to be the worst: nothing
    in the simulation speaks against it.
    """
    assert measured.keys() == simulated.keys(), "every policy is measured and simulated"
    means = {name: float(np.mean(repeats)) for name, repeats in measured.items()}
    sign = 1.0 if is_better_low(metric) else -1.0
    best = min(means, key=lambda name: sign * means[name])
    pick = min(means, key=lambda name: (sign * simulated[name], -sign * means[name]))
    spreads = [spread_of(measured[name]) for name in (best, pick)]
    known = [spread for spread in spreads if spread is not None]
    return Choice(
        metric=metric,
        measured=means,
        simulated=dict(simulated),
        best=best,
        pick=pick,
        regret=abs(means[pick] - means[best]) / means[best],
        spread=max(known) if len(known) == len(spreads) else None,
        order=kendall_tau(list(means.values()), [simulated[name] for name in means]),
    )
