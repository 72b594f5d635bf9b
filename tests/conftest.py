"""Shared fixtures and Hypothesis profiles (`HYPOTHESIS_PROFILE` picks one)."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

SHARED = Path(__file__).resolve().parents[2] / "shared"

settings.register_profile(
    "ci",
    derandomize=True,
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("dev", deadline=None, max_examples=20)
settings.register_profile(
    "deep", deadline=None, max_examples=3000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--write-golden",
        action="store_true",
        help="write the golden table of the policies anew instead of comparing with it",
    )


def shared_folder(name: str) -> Path:
    """A folder of the shared data; skips the test, saying so, where it is absent."""
    folder = SHARED / name
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there")
    return folder


@pytest.fixture(scope="session")
def shared_traces() -> Path:
    return shared_folder("traces")


@pytest.fixture(scope="session")
def shared_oracles() -> Path:
    return shared_folder("oracles")
