"""`StepCost`: how long an iteration takes; the one thing in which backends differ."""

from typing import Any, Protocol

from schedsim.scheduler.batch import BatchShape


class StepCost(Protocol):
    """A step-time model: a pure function of the batch's shape.

    It is asked once an iteration, so `seconds` is plain arithmetic on attributes: explicit sums and
    products from left to right, no dot, sum or exp, which give the same bits on every machine.
    """

    def seconds(self, shape: BatchShape) -> float:
        """Seconds that an iteration of this shape takes, finite and not negative.

        An iteration that runs nothing takes 0.0: the caller decides that and does not ask, so a
        fixed cost need not be guarded against an empty shape here.
        """

    def describe(self) -> dict[str, Any]:
        """Name and parameters, JSON-ready, for the manifest."""
