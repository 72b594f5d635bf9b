"""Event-driven reference queues in continuous time, which know nothing of the engine."""

from collections.abc import Sequence
from heapq import heappop, heappush

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def srpt(arrivals: Floats, service: Floats) -> Floats:
    """Sojourns on one server that always serves the shortest remainder."""
    leaves = np.zeros(len(arrivals))
    waiting: list[tuple[float, int]] = []
    now = 0.0
    for index in range(len(arrivals) + 1):
        until = float(arrivals[index]) if index < len(arrivals) else np.inf
        while waiting and now < until:
            remainder, job = heappop(waiting)
            if now + remainder > until:
                heappush(waiting, (remainder - (until - now), job))
                break
            now += remainder
            leaves[job] = now
        now = max(now, until)
        if index < len(arrivals):
            heappush(waiting, (float(service[index]), index))
    return leaves - arrivals


def processor_sharing(arrivals: Floats, service: Floats) -> Floats:
    """Sojourns on one server that serves all jobs at once, each at an equal share of its rate.

    In the time that passes for each job, job i leaves its service after it came.
    """
    leaves = np.zeros(len(arrivals))
    present: list[tuple[float, int]] = []
    now = virtual = 0.0
    for index in range(len(arrivals) + 1):
        until = float(arrivals[index]) if index < len(arrivals) else np.inf
        while present:
            end, job = present[0]
            next_end = now + (end - virtual) * len(present)
            if next_end > until:
                break
            heappop(present)
            now, virtual = next_end, end
            leaves[job] = now
        if index == len(arrivals):
            break
        if present:
            virtual += (until - now) / len(present)
        now = until
        heappush(present, (virtual + float(service[index]), index))
    return leaves - arrivals


def first_come_first_served(arrivals: Sequence[float], service: Sequence[float]) -> list[float]:
    """Sojourns by the Lindley recursion."""
    sojourns: list[float] = []
    for index, duration in enumerate(service):
        gap = arrivals[index] - arrivals[index - 1] if index else np.inf
        sojourns.append(max(0.0, (sojourns[-1] if index else 0.0) - gap) + duration)
    return sojourns
