"""`check_allocator`: `AllocatorMachine` in one call, and the shortest way to break it as a text."""

from hypothesis import HealthCheck, Phase
from hypothesis import settings as hypothesis_settings
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test

from schedsim.testing.allocator_machine import AllocatorMachine, Factory
from schedsim.testing.violations import AllocatorViolation, Enough


def check_allocator(
    factory: Factory,
    *,
    contiguous: bool = False,
    fragments: bool = False,
    examples: int | None = None,
    max_shrinks: int = 300,
) -> None:
    """Drive what `factory` makes through random requests, as `AllocatorMachine.of` describes.

    `examples` None is the number of the Hypothesis profile in use, which also says whether draws
    are the same every time; after a failure `max_shrinks` attempts are made at a shorter one.

    Raises:
        ConfigError: `factory` is not one, as for `AllocatorMachine.of`.
        AllocatorViolation: the manager broke its contract or raised; lists the calls that lead
            there, as few as were found.
    """
    machine = AllocatorMachine.of(factory, contiguous=contiguous, fragments=fragments)
    machine.failures.max_shrinks = max_shrinks
    default = hypothesis_settings.default
    assert default is not None, "Hypothesis has no profile"
    chosen = hypothesis_settings(
        default,
        max_examples=default.max_examples if examples is None else examples,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    try:
        run_state_machine_as_test(machine, settings=chosen)
    except (AllocatorViolation, Flaky, Enough):
        shortest = machine.failures.shortest
        assert shortest is not None, "a failure that nobody saw"
        raise AllocatorViolation(str(shortest)) from shortest.__cause__
