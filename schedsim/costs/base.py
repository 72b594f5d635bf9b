"""`StepCost`: how long an iteration takes; the one thing in which backends differ."""

from typing import Any, NamedTuple, Protocol, runtime_checkable

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


class StepParts(NamedTuple):
    """Where the seconds of an iteration go, in the order in which an engine spends them.

    `host` from the decision to the start on the device, `device` from there until the host sees the
    tokens, `gap` from there until the engine looks for work again.
    """

    host: float
    device: float
    gap: float


@runtime_checkable
class PartedCost(StepCost, Protocol):
    """A step-time model that knows the engine's own time beside the device's.

    Its `seconds` is the sum of the parts: what an iteration takes in an engine that is never idle.
    """

    def parts(self, shape: BatchShape) -> StepParts:
        """The parts of an iteration of this shape, each finite and not negative."""
