"""`StepCost`: how long an iteration takes; the one thing in which backends differ."""

from typing import Any, Protocol

from schedsim.scheduler.batch import BatchShape


class StepCost(Protocol):
    """A step-time model: a pure function of the batch's shape.

    It is asked once an iteration, so `seconds` is plain arithmetic: explicit sums and products from
    left to right, which give the same bits on every machine.
    """

    def seconds(self, shape: BatchShape) -> float:
        """Seconds that an iteration of this shape takes; the shape is not empty."""

    def describe(self) -> dict[str, Any]:
        """Name and parameters, JSON-ready, for the manifest."""
