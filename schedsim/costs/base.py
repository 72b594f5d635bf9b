"""`StepCost`: how long an iteration takes; the one thing in which backends differ."""

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from schedsim.scheduler.batch import BatchShape

if TYPE_CHECKING:
    from schedsim.costs.throttle import Throttle

Seconds = npt.NDArray[np.float64]


class StepCost(Protocol):
    """A step-time model: a pure function of the batch's shape.

    It is asked once an iteration, so `seconds` is plain arithmetic on attributes: explicit sums,
    products and roots from left to right, no dot, sum or exp, which give the same bits on every
    machine.
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


class PartsAhead(NamedTuple):
    """`StepParts` of consecutive iterations: an array where they differ, a number where not."""

    host: Seconds | float
    device: Seconds | float
    gap: Seconds | float


@runtime_checkable
class AheadCost(StepCost, Protocol):
    """A step-time model that can be asked for many iterations at once."""

    def parts_ahead(self, shape: BatchShape, iterations: int) -> PartsAhead:
        """The parts of so many iterations that only decode, bit for bit as one by one.

        The first has this `shape`; in each later one every decode has one more token of context.
        """


@runtime_checkable
class ThrottledCost(PartedCost, AheadCost, Protocol):
    """A step-time model of a device that may be slower after much work.

    Its pure functions take the device as it is when batches follow their like.
    """

    @property
    def throttle(self) -> "Throttle | None":
        """How it slows down; None: it does not, and nobody needs to ask `parts_after`."""

    def parts_after(self, shape: BatchShape, rate: float) -> StepParts:
        """The parts of a batch that the device begins at `rate` tokens/s (`TokenRate`)."""


def decode_contexts(shape: BatchShape, iterations: int) -> Seconds:
    """`decode_context` and `padding_context` of so many iterations on, exact in float64."""
    context = shape.decode_context + shape.padding_context
    return context + shape.decode_requests * np.arange(iterations, dtype=np.float64)
