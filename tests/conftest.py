"""`--soak`: the long form of the tests that drive the engine at random. And nothing is kept in the user's own cache."""

from __future__ import annotations

import os

import pytest

os.environ["QB_PACKED_LIMIT"] = "0"  # tests of what is kept say where, and take this away


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="drive the engine by the ten and hundred thousand requests")


@pytest.fixture
def soak(request: pytest.FixtureRequest) -> bool:
    return bool(request.config.getoption("--soak"))
