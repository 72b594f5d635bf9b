"""What several tests of validations serve."""

import pytest

from schedsim.traces import Trace
from tests.validation.runs import small_trace


@pytest.fixture(scope="session")
def trace() -> Trace:
    return small_trace()
