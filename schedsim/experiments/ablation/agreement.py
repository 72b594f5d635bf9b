"""How far a simulation is from what was measured: error by error, and in the order of the cells."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from schedsim.experiments.ablation.factors import LEVEL, Factor
from schedsim.experiments.ablation.measuring import Pair
from schedsim.experiments.ablation.serving import served_rates
from schedsim.experiments.intervals import Values


@dataclass(frozen=True, slots=True)
class Agreement:
    """Of all pairs of cells those that measured apart by more than the spread of the repeats, and
    how many of them the simulation puts in the same order. Without repeats nothing is apart."""

    apart: int
    same_order: int


def error_of(pair: Pair) -> Factor:
    """Simulated over measured rate, repeat by repeat."""
    rates = zip(served_rates(pair.simulated), served_rates(pair.measured), strict=True)
    return Factor.of_logs([math.log(simulated / measured) for simulated, measured in rates])


def agreement_of(pairs: Sequence[Pair]) -> Agreement:
    """The order of the cells in both."""
    apart = same = 0
    for one, other in combinations(pairs, 2):
        measured = np.log(served_rates(other.measured)) - np.log(served_rates(one.measured))
        if len(measured) < 2 or not measured.any():
            continue
        estimate = Values.of_mean(measured).estimate
        if abs(estimate.value) <= estimate.half_width(LEVEL):
            continue
        simulated = np.log(served_rates(other.simulated)) - np.log(served_rates(one.simulated))
        apart += 1
        same += bool(estimate.value * simulated.mean() > 0)
    return Agreement(apart, same)
