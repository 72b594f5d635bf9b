"""`Divergence`: how a free simulation decided against how the measured run did."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

from schedsim.experiments.validation.kendall import kendall_tau
from schedsim.results.trail import Events, Source, Trail


@dataclass(frozen=True, slots=True)
class Shared:
    """Events of two runs. An event is a request's first, second, … admission or preemption.

    `in_both` is the share of all these events that both runs have, `in_same_iteration` of those
    that have them in the iteration of the same number; None where neither has any.
    """

    measured: int
    simulated: int
    in_both: float | None
    in_same_iteration: float | None


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where decisions part and how many are alike all the same.

    `first_difference` is the first iteration, from 0, that was decided otherwise, None if none was;
    `compared` what that looked at (`Trail.source`). `order` is Kendall's tau of the order in which
    requests were first admitted. `victims` is None where a run did not write down whom it
    preempted.
    """

    compared: Source
    iterations: tuple[int, int]
    first_difference: int | None
    admissions: Shared
    victims: Shared | None
    order: float | None

    @property
    def same(self) -> bool:
        """Whether every iteration was decided alike, and there are as many."""
        return self.first_difference is None

    def as_json(self) -> dict[str, Any]:
        """The fields as plain data."""
        measured, simulated = self.iterations
        return {
            **asdict(self),
            "iterations": {"measured": measured, "simulated": simulated},
            "same": self.same,
        }


def divergence_of(measured: Trail, simulated: Trail) -> Divergence:
    """Compare the decisions of two runs of one load, iteration by iteration."""
    victims = None
    if measured.preempted is not None and simulated.preempted is not None:
        victims = _shared(measured.preempted, simulated.preempted)
    return Divergence(
        compared=measured.source,
        iterations=(len(measured), len(simulated)),
        first_difference=measured.first_difference(simulated),
        admissions=_shared(measured.admitted, simulated.admitted),
        victims=victims,
        order=_order(measured.admitted, simulated.admitted),
    )


def _shared(measured: Events, simulated: Events) -> Shared:
    there, here = _numbered(measured), _numbered(simulated)
    both = there.keys() & here.keys()
    every = len(there) + len(here) - len(both)
    at_once = sum(there[event] == here[event] for event in both)
    return Shared(
        measured=len(there),
        simulated=len(here),
        in_both=len(both) / every if every else None,
        in_same_iteration=at_once / every if every else None,
    )


def _numbered(events: Events) -> dict[tuple[int, int], int]:
    """The iteration of each request's first, second, … event."""
    counts: Counter[int] = Counter()
    found = {}
    for iteration, request in zip(events.iteration.tolist(), events.request.tolist(), strict=True):
        counts[request] += 1
        found[request, counts[request]] = iteration
    return found


def _order(measured: Events, simulated: Events) -> float | None:
    there, here = _places(measured), _places(simulated)
    both = [request for request in there if request in here]
    return kendall_tau([there[r] for r in both], [here[r] for r in both])


def _places(events: Events) -> dict[int, int]:
    """Where each request stands in the order of first admissions."""
    return {request: place for place, request in enumerate(dict.fromkeys(events.request.tolist()))}
